"""CLIP's tokenizer against OpenAI's own code."""

import json
import pickle

import clip_lines
import numpy as np
import pytest

from jaxformers.errors import DataError, UserError
from jaxformers.text import load_tokenizer
from jaxformers.text.clip import CLIPTokenizer

GOLDEN = json.loads(clip_lines.GOLDEN.read_text())


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer()


def test_ids_of_ten_thousand_varied_lines_are_openais(tokenizer):
    lines = clip_lines.lines()
    rows = tokenizer.encode(lines)
    assert [row[:100] for row in rows[: len(clip_lines.EXTRA)]] == GOLDEN["rows"]
    assert len(rows) == clip_lines.COUNT and clip_lines.digests(rows) == GOLDEN["digests"]


def test_known_ids(tokenizer):
    assert tokenizer.encode("a photo of a cat") == [[320, 1125, 539, 320, 2368]]
    assert (tokenizer.vocab_size, tokenizer.start_id, tokenizer.eos_id) == (49408, 49406, 49407)
    assert tokenizer.template.single == ((49406,), (49407,))


def test_texts_are_decoded_as_openais(tokenizer):
    # Theirs goes on behind an end of text; ours stops there, as every tokenizer here does.
    for row, text in zip(GOLDEN["rows"], GOLDEN["texts"], strict=True):
        if row and tokenizer.eos_id not in row:
            assert tokenizer.decode(row) == [text]
    assert tokenizer.decode([49406, 320, 1125, 49407, 2368, 0]) == ["a photo"]
    with pytest.raises(DataError, match="49408"):
        tokenizer.decode([49408])


def test_half_a_surrogate_pair_is_a_replacement_character(tokenizer):
    assert tokenizer.encode("a \ud83d b") == tokenizer.encode("a \ufffd b")


def test_it_is_saved_loaded_and_sent_to_other_processes(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for again in (load_tokenizer(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert isinstance(again, CLIPTokenizer) and again.fingerprint == tokenizer.fingerprint
        np.testing.assert_array_equal(
            again.encode("caf\u00e9 &amp; t&eacute;"), tokenizer.encode("café & té")
        )
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert vocabulary["<|endoftext|>"] == 49407 and vocabulary["cat</w>"] == 2368
    assert len((tmp_path / "merges.txt").read_text().splitlines()) == 48_895
    (tmp_path / "openai_clip.json").write_text('{"tokenizer": "openai_clip", "merges": "0"}')
    with pytest.raises(UserError, match="not the CLIP vocabulary"):
        load_tokenizer(tmp_path)
