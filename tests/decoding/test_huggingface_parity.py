"""Greedy and beam search against Hugging Face's, on a small MarianMT that was taught a task.

`fixtures/make_marian.py` says what: sources are padded, sentences end by themselves, and the
likeliest first token does not begin the likeliest sentence.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxformers.decoding import beam_search, greedy
from jaxformers.models import Transformer
from jaxformers.pretrained import load_pretrained

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import marian_cases as cases

GOLDEN = json.loads(cases.DECODING.read_text())
SOURCE = np.array(GOLDEN["source"])
MASK = np.not_equal(SOURCE, GOLDEN["pad_id"]).astype(np.int32)


def search(name, run, **options):
    model, variables = load_pretrained(cases.TASK)
    settings = GOLDEN["generations"][name]["settings"]
    config = replace(
        model.config,
        forced_eos_id=settings["forced_eos_token_id"],
        banned_ids=tuple(word[0] for word in settings["bad_words_ids"]),
    )
    if name == "natural":  # what the published folder itself says
        assert config == model.config
    return run(Transformer(config), variables, SOURCE, MASK, settings["max_length"], **options)


def until_eos(rows):
    rows = np.asarray(rows).tolist()
    return [row[: row.index(0) + 1] if 0 in row else row for row in rows]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", GOLDEN["generations"])
def test_greedy_search_gives_the_references_ids(name):
    result = search(name, greedy)
    assert until_eos(result.ids) == GOLDEN["generations"][name]["greedy"]["ids"]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", GOLDEN["generations"])
def test_beam_search_gives_the_references_ids_and_scores(name):
    result = search(name, beam_search, beams=4, alpha=0.0)
    expected = GOLDEN["generations"][name]["beam"]
    assert until_eos(result.ids) == expected["ids"]
    np.testing.assert_allclose(result.scores, expected["scores"], atol=1e-4)


def test_the_golden_sentences_are_worth_comparing():
    for name, generation in GOLDEN["generations"].items():
        for kind in ("greedy", "beam"):
            rows = {tuple(row) for row in generation[kind]["ids"]}
            assert len(rows) > 25, (name, kind)
    natural = GOLDEN["generations"]["natural"]
    assert natural["greedy"]["ids"] != natural["beam"]["ids"]
    assert len({len(row) for row in natural["beam"]["ids"]}) > 4
