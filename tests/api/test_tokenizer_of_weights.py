"""A tokenizer must be that of the weights: its kind, its size, its special tokens."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import bert_use as use
import text_folders

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.text import SentencePiece

LINES = [
    "Open the file.",
    "Close the window now.",
    "The file is open",
    "abcdefghijklmnopqrstuvwxyz",
]


def refused(call, *args, **options) -> str:
    with pytest.raises(WeightsError) as raised:
        call(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def changed_vocabulary(folder, change):
    ids = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(change(ids)))
    return folder


def swapped(first: str, second: str):
    return lambda ids: ids | {first: ids[second], second: ids[first]}


def test_a_marian_vocabulary_larger_than_the_weights_is_refused(tmp_path):
    folder = changed_vocabulary(text_folders.marian(tmp_path / "m"), lambda ids: ids | {"new": 700})
    message = refused(jf.translate, folder, ["Open the file."])
    assert "has 701 tokens, but its weights have 671; put the tokenizer" in message


@pytest.mark.parametrize(
    ("special", "name", "token_id"), [("</s>", "eos_id", 0), ("<pad>", "pad_id", 670)]
)
def test_other_special_tokens_of_a_marian_are_refused(special, name, token_id, tmp_path):
    change = swapped(special, "\u2581the")
    folder = changed_vocabulary(text_folders.marian(tmp_path / "m"), change)
    message = refused(jf.translate, folder, ["Open the file."])
    assert f"weights were trained with {name} {token_id}" in message


def test_a_marian_with_more_rows_than_tokens_translates(tmp_path):
    rows = text_folders.TOKENS + 9
    pad = dict(pad_token_id=text_folders.TOKENS - 1, decoder_start_token_id=text_folders.TOKENS - 1)
    folder = text_folders.marian(
        tmp_path / "m", vocab_size=rows, decoder_vocab_size=rows, bad_words_ids=[[670]], **pad
    )
    assert len(jf.translate(folder, LINES)) == len(LINES)


@pytest.mark.slow
def test_a_vocabulary_of_our_own_is_checked_too(tmp_path):
    tokenizer = SentencePiece.train(LINES * 4, 40, "bpe")
    config = TransformerConfig(
        40, width=8, heads=2, feed_forward=8, encoder_layers=1, decoder_layers=1, max_length=64
    )
    ids = np.zeros((1, 1), np.int32)
    model = Transformer(config)
    variables = model.init(jax.random.key(0), ids, ids)
    jf.save_pretrained(model, variables, tmp_path / "fits", tokenizer=tokenizer)
    assert len(jf.translate(tmp_path / "fits", ["Open", ""])) == 2
    larger = SentencePiece.train(LINES * 4, 44, "bpe")
    source = (model, variables, larger)
    assert "has 44 tokens, but its weights have 40" in refused(jf.translate, source, ["Open"])
    other_model = Transformer(TransformerConfig(**{**vars(config), "eos_id": 3}))
    assert "eos_id 1" in refused(jf.translate, (other_model, variables, tokenizer), ["Open"])


def test_another_kind_of_tokenizer_is_refused_by_its_name(tmp_path):
    encoder = (*jf.from_pretrained(use.folder("encoder", tmp_path / "b")),)
    marian = jf.load_text(text_folders.marian(tmp_path / "m"))
    assert "has a Marian as its tokenizer" in refused(jf.embed, (*encoder, marian), ["a"])


def test_saving_a_tokenizer_that_is_not_the_weights_is_refused(tmp_path):
    model, variables = jf.from_pretrained(use.folder("encoder", tmp_path / "b"))
    marian = jf.load_text(text_folders.marian(tmp_path / "m"))
    message = refused(jf.save_pretrained, model, variables, tmp_path / "new", tokenizer=marian)
    assert "has a Marian" in message and not (tmp_path / "new").exists()


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["encoder", "words", "classes", "spans"])
def test_outputs_that_are_not_finite_are_an_error(name, tmp_path):
    model, variables = jf.from_pretrained(use.folder(name, tmp_path))
    variables = jax.tree.map(lambda x: x * np.nan, variables)
    source, call = (
        (model, variables, jf.load_text(tmp_path)),
        {
            "encoder": lambda s: jf.embed(s, ["a"]),
            "words": lambda s: jf.fill_mask(s, ["a [MASK]"]),
            "classes": lambda s: jf.classify(s, ["a"]),
            "spans": lambda s: jf.answer(s, "Who?", "The baker left."),
        }[name],
    )
    assert "outputs are not finite" in refused(call, source)
