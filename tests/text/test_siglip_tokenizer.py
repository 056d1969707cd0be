"""SigLIP's tokenizer against transformers' SiglipTokenizer."""

import json
import pickle

import clip_lines
import pytest
import siglip_lines as cases
from etils import epath

from jaxformers.errors import UserError
from jaxformers.text import HuggingFaceTokenizer, SigLIPTokenizer, load_tokenizer
from jaxformers.text.clip import padded_rows

GOLDEN = json.loads(cases.GOLDEN.read_text())


def folder_of(path, rule="identity", **settings):
    """A folder as transformers saves it."""
    path = epath.Path(path)
    path.mkdir(exist_ok=True)
    (path / "spiece.model").write_bytes(cases.model_file(rule).read_bytes())
    settings = {"tokenizer_class": "SiglipTokenizer"} | settings
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.mark.parametrize("rule", cases.MODELS)
@pytest.mark.parametrize("name", ["cased", "legacy", "new"])
def test_ids_of_two_thousand_odd_lines_are_transformers(rule, name, tmp_path):
    options = {"new": {"legacy": False}, "cased": {"do_lower_case": False}}.get(name, {})
    tokenizer = load_tokenizer(folder_of(tmp_path, rule, **options))
    assert isinstance(tokenizer, SigLIPTokenizer)
    golden = GOLDEN[f"{rule}_{name}"]
    assert padded_rows(tokenizer, cases.EXTRA, 64).tolist() == golden["rows"]
    rows = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode(cases.lines())]
    assert clip_lines.digests(rows) == golden["digests"]


def test_special_tokens_in_a_text_are_plain_characters(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path))
    assert tokenizer.encode(["a </s> b", "<unk>"]) == tokenizer.encode(["a s b", "unk"])
    assert tokenizer.encode("a \ud83d b") == tokenizer.encode("a \ufffd b")


def test_it_is_saved_loaded_decoded_and_sent_to_other_processes(tmp_path):
    tokenizer = load_tokenizer(folder_of(tmp_path / "a", do_lower_case=False, pad_token="<pad>"))
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    tokenizer.save(tmp_path / "b")
    for again in (load_tokenizer(tmp_path / "b"), pickle.loads(pickle.dumps(tokenizer))):
        assert again.fingerprint == tokenizer.fingerprint and again.pad_id == 0
        assert again.encode("A cat, asleep.") == tokenizer.encode("A cat, asleep.")
    assert tokenizer.fingerprint != load_tokenizer(folder_of(tmp_path / "c")).fingerprint
    row = padded_rows(tokenizer, "a cat, asleep.", 64)[0]
    assert tokenizer.decode(row) == ["a cat asleep"]


def test_extra_ids_at_the_end_have_no_rows_in_the_weights(tmp_path):
    folder = folder_of(tmp_path)
    model = (folder / "spiece.model").read_bytes()
    plain = SigLIPTokenizer(model)
    for number in (1, 0):  # of the model's fields, each a piece with its score and its kind
        text = f"<extra_id_{number}>".encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15" + bytes(4) + b"\x18\x04"
        model += b"\x0a" + bytes([len(piece)]) + piece
    tokenizer = SigLIPTokenizer(model)
    assert tokenizer._processor.get_piece_size() == plain.vocab_size + 2
    assert tokenizer.vocab_size == plain.vocab_size
    lines = ["a cat <extra_id_1>", "extra_id_0", *cases.EXTRA]
    assert tokenizer.encode(lines) == plain.encode(lines)


def test_a_t5s_model_of_the_same_name_is_not_siglips(tmp_path):
    assert SigLIPTokenizer.recognises(folder_of(tmp_path / "a"))
    folder = folder_of(tmp_path / "b", tokenizer_class="T5Tokenizer")
    assert not SigLIPTokenizer.recognises(folder)
    (folder / "tokenizer_config.json").unlink()
    assert not SigLIPTokenizer.recognises(folder)
    (folder / "config.json").write_text('{"model_type": "siglip_text_model"}')
    assert SigLIPTokenizer.recognises(folder)
    # As in transformers, spiece.model counts where a tokenizer.json lies beside it.
    (folder / "tokenizer.json").write_text("{}")
    assert isinstance(load_tokenizer(folder), SigLIPTokenizer)
    assert HuggingFaceTokenizer.recognises(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_lower_case": "yes"}, "do_lower_case is 'yes'"),
        ({"legacy": None}, "legacy is None"),
        ({"eos_token": "[SEP]"}, "as its eos_token"),
        ({"pad_token": "[PAD]"}, "lacks the piece '\\[PAD\\]'"),
    ],
)
def test_what_the_files_state_wrongly_is_refused_in_one_line(settings, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(folder_of(tmp_path, **settings))
    assert "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 99])
def test_a_damaged_model_is_refused_in_one_line(content, tmp_path):
    (folder_of(tmp_path) / "spiece.model").write_bytes(content)
    with pytest.raises(UserError, match=r"spiece\.model") as raised:
        load_tokenizer(tmp_path)
    assert "\n" not in str(raised.value)
