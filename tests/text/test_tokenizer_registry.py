"""Tokenizers are known by one registry, to which a family outside the library adds its own."""

import pytest

from jaxformers.errors import UserError
from jaxformers.text import WordPiece, base, holds_tokenizer, load_tokenizer, register_tokenizer


class Letters:
    """A tokenizer of a plug-in: one token for each letter of its file."""

    FILE_NAMES = "letters.txt"

    @classmethod
    def recognises(cls, folder):
        return (folder / "letters.txt").exists()

    @classmethod
    def load(cls, folder):
        tokenizer = cls()
        tokenizer.letters = (folder / "letters.txt").read_text()
        return tokenizer


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(base, "_classes", list(base._classes))
    register_tokenizer(Letters)
    register_tokenizer(Letters)  # as where a notebook's cell runs again
    assert base._classes.count(Letters) == 1


def test_a_registered_tokenizer_is_loaded_by_its_files(registered, tmp_path):
    (tmp_path / "letters.txt").write_text("abc")
    assert holds_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path).letters == "abc"


def test_ours_come_first(registered, tmp_path):
    (tmp_path / "letters.txt").write_text("abc")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    assert isinstance(load_tokenizer(tmp_path), WordPiece)


def test_a_folder_without_one_states_what_was_looked_for_and_what_it_holds(registered, tmp_path):
    for number in range(11):
        (tmp_path / f"{number:02}.bin").write_bytes(b"")
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    message = str(raised.value)
    assert "source.spm with" in message and "letters.txt" in message
    assert "it holds 00.bin, 01.bin" in message and message.endswith("07.bin and 3 more")
    with pytest.raises(UserError, match="there is no such folder"):
        load_tokenizer(tmp_path / "nowhere")
