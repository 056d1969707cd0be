import json
import pickle
import shutil
from pathlib import Path

import pytest

from jaxformers.errors import DataError, UserError
from jaxformers.text import Marian, load_tokenizer

FOLDER = Path(__file__).parents[1] / "fixtures" / "marian_tokenizer"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf8"))


@pytest.fixture(scope="module")
def tokenizer():
    return Marian.load(FOLDER)


def with_eos(tokenizer, rows):
    return [[*row, tokenizer.eos_id] for row in rows]


def test_source_ids_equal_those_of_transformers(tokenizer):
    assert with_eos(tokenizer, tokenizer.encode(GOLDEN["texts"])) == GOLDEN["source_ids"]


def test_target_ids_equal_those_of_transformers(tokenizer):
    assert with_eos(tokenizer, tokenizer.encode_target(GOLDEN["texts"])) == GOLDEN["target_ids"]


def test_decoded_texts_equal_those_of_transformers(tokenizer):
    assert tokenizer.decode(GOLDEN["source_ids"]) == GOLDEN["decoded"]


def test_half_a_surrogate_pair_is_read_as_the_replacement_character(tokenizer):
    assert tokenizer.encode("a \ud83d b") == tokenizer.encode("a \ufffd b")
    assert tokenizer.encode_target(["\udfff"]) == tokenizer.encode_target(["\ufffd"])


def test_a_single_text_is_a_list_of_one(tokenizer):
    assert tokenizer.encode(">>de<< Open it") == tokenizer.encode([">>de<< Open it"])
    assert tokenizer.decode(tokenizer.encode_target("Größe")[0]) == ["Größe"]
    for texts in ({"a": 1}, b"a", None, ["a", 1]):
        with pytest.raises(DataError, match="not a "):
            tokenizer.encode(texts)


def test_special_ids_are_those_of_the_vocabulary(tokenizer):
    assert [tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id] == GOLDEN["special"]
    assert tokenizer.start_id == tokenizer.pad_id == tokenizer.vocab_size - 1


def test_decoding_ends_at_the_first_eos_and_ignores_ids_without_a_piece(tokenizer):
    ids = tokenizer.encode_target(["Größe ändern"])[0]
    padded = [tokenizer.start_id, *ids, tokenizer.vocab_size + 3, tokenizer.eos_id, *ids]
    assert tokenizer.decode([padded]) == ["Größe ändern"]


def test_saved_and_loaded_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new")
    again = load_tokenizer(tmp_path / "new")
    assert isinstance(again, Marian)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(GOLDEN["texts"]) == tokenizer.encode(GOLDEN["texts"])


def test_a_copy_sent_to_another_process_is_the_same(tokenizer):
    assert pickle.loads(pickle.dumps(tokenizer)).fingerprint == tokenizer.fingerprint


def test_the_settings_of_published_folders_are_read(tmp_path):
    folder = shutil.copytree(FOLDER, tmp_path / "marian")
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    token = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    decoder = {"0": token | {"content": "</s>"}, "1": token | {"content": "<unk>"}}
    settings = special | {
        "added_tokens_decoder": decoder,
        "source_lang": "en",
        "sp_model_kwargs": {},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    assert load_tokenizer(folder).encode(GOLDEN["texts"]) == Marian.load(FOLDER).encode(
        GOLDEN["texts"]
    )


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vocab.json", None, "lacks vocab.json"),
        ("target.spm", None, "lacks target.spm"),
        ("source.spm", b"no model", "not a SentencePiece model"),
        ("vocab.json", b"{", "not valid JSON"),
        ("vocab.json", b"[1]", "must be a table"),
        ("vocab.json", b'{"</s>": 0, "<unk>": 1}', "lacks the special tokens <pad>"),
        ("vocab.json", b'{"a":' * 10_000, "not valid JSON"),
        ("added_tokens.json", b'{"<user>": 900}', "states the added tokens <user>, which"),
        ("special_tokens_map.json", b'{"pad_token": "[PAD]"}', "the added tokens \\[PAD\\]"),
        ("target_vocab.json", b"{}", "separate source and target vocabularies"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, name, content, says):
    folder = tmp_path / "marian"
    shutil.copytree(FOLDER, folder)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)
