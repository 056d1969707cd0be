"""Searches by what a folder's generation_config.json states, against Hugging Face's `generate`.

`fixtures/make_marian.py` (stated) wrote the folder's files and what transformers generates by them.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import marian_cases as cases
from test_search import EOS, tiny

from jaxformers.decoding import Scoring, beam_search, decode_n_best
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.tasks.translation.translation_evaluation import stated_search

GOLDEN = json.loads(cases.STATED.read_text())
SOURCES = [[token for token in row if token != GOLDEN["pad_id"]] for row in GOLDEN["source"]]


def folder(path: Path, generation: dict, *, in_config: bool = False) -> Path:
    """The taught model with what is stated of its search, in its own file or in config.json."""
    shutil.copytree(cases.TASK, path)
    if in_config:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | generation))
    else:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def searched(model, variables, n_best: int):
    search = stated_search(model)
    return decode_n_best(
        model,
        variables,
        SOURCES,
        n_best,
        beams=search.beams,
        alpha=search.alpha,
        scoring=search.scoring,
        longest=search.longest,
    )


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    "name",
    ["unigrams", "early", "long", *sorted(set(GOLDEN["searches"]) - {"unigrams", "early", "long"})],
)
def test_a_stated_search_gives_the_references_n_best_and_scores(name, tmp_path):
    case = GOLDEN["searches"][name]
    model, variables = load_pretrained(folder(tmp_path / "m", case["generation"]))
    table = {"table": variables["params"]["token_embedding"]["table"] * cases.FLATTER}
    variables = {"params": variables["params"] | {"token_embedding": table}}
    n_best = len(case["ids"]) // len(SOURCES)
    hypotheses = searched(model, variables, n_best)
    flat = [hypothesis for row in hypotheses for hypothesis in row]
    assert [hypothesis.ids for hypothesis in flat] == case["ids"]
    if case["scores"]:
        np.testing.assert_allclose([h.score for h in flat], case["scores"], rtol=1e-5, atol=1e-4)


def test_the_stated_searches_are_worth_comparing():
    names = ("long", "short", "early", "bigrams", "unigrams")
    ids = {name: json.dumps(GOLDEN["searches"][name]["ids"]) for name in names}
    assert len(set(ids.values())) == len(names)


def test_what_is_stated_may_lie_in_config_json_and_is_saved_again(tmp_path):
    generation = GOLDEN["searches"]["early"]["generation"]
    model, variables = load_pretrained(folder(tmp_path / "m", generation, in_config=True))
    assert model.config.generation.beams == 3 and model.config.generation.early_stopping is True
    for name in ("marian", "jaxformers"):
        save_pretrained(model, variables, tmp_path / name, format=name)
        again, _ = load_pretrained(tmp_path / name)
        assert again.config == model.config


def test_no_search_is_stated_where_no_file_states_one():
    model, _ = load_pretrained(cases.TASK)
    assert model.config.generation is None
    search = stated_search(model)
    assert (search.beams, search.alpha, search.scoring, search.longest) == (4, 0.6, Scoring(), None)


def test_options_replace_what_is_stated(tmp_path):
    generation = GOLDEN["searches"]["bigrams"]["generation"]
    model, _ = load_pretrained(folder(tmp_path / "m", generation))
    assert stated_search(model, beams=2).beams == 2
    assert stated_search(model, beams=2).scoring.length_norm == "power"
    paper = stated_search(model, alpha=0.3, no_repeat_ngram=0)
    assert (paper.alpha, paper.scoring, paper.longest) == (0.3, Scoring(), None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("do_sample", True),
        ("repetition_penalty", 1.2),
        ("num_beam_groups", 2),
        ("min_length", 3),
        ("forced_bos_token_id", 4),
        ("num_beams", 0),
        ("num_beams", 2.0),
        ("length_penalty", "high"),
        ("length_penalty", float("nan")),
        ("early_stopping", "soon"),
        ("no_repeat_ngram_size", -1),
        ("max_length", 1),
    ],
)
def test_a_stated_search_that_is_not_supported_is_refused_by_its_field(field, value, tmp_path):
    path = folder(tmp_path / "m", {"num_beams": 4, field: value})
    with pytest.raises(WeightsError, match=field) as raised:
        load_pretrained(path)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_search_that_has_not_ended_goes_on_to_the_stated_length():
    model, variables = tiny(11, scale=1.0)
    bias = variables["params"]["logits_bias"].at[EOS].add(-9.0)  # few searches end by themselves
    variables = {"params": variables["params"] | {"logits_bias": bias}}
    sources = [[5, 6, EOS], [7, EOS], [2, 3, 4, 5, EOS], [8, 8, EOS]]

    def ids(**limits):
        scoring = Scoring("power", "present_length")
        options = dict(beams=2, alpha=0.0, scoring=scoring) | limits
        return [best.ids for best, *_ in decode_n_best(model, variables, sources, **options)]

    assert ids() != ids(max_length=90)
    assert ids(longest=90) == ids(max_length=90)
    assert ids(longest=6) == ids(max_length=6)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 1, 3])
def test_no_ngram_comes_twice(n):
    model, variables = load_pretrained(cases.TASK)
    ids = np.array([[5, 5, 5, 6, 5, 5, 5, 6, 5]] * 2)
    decoded = beam_search(model, variables, ids, scoring=Scoring(no_repeat_ngram=n), all_beams=True)
    for row in np.asarray(decoded.ids).reshape(-1, decoded.ids.shape[-1]).tolist():
        row = row[: row.index(0)] if 0 in row else row
        ngrams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        assert len(set(ngrams)) == len(ngrams)


@pytest.mark.parametrize("n_best", [0, 3, 1.5, "2"])
def test_translations_are_from_one_to_the_number_of_beams(n_best):
    model, variables = load_pretrained(cases.TASK)
    with pytest.raises(ConfigError, match="whole number from 1 to the number of beams, 2"):
        decode_n_best(model, variables, SOURCES, n_best, beams=2)


def test_weights_of_nan_are_refused():
    model, variables = load_pretrained(cases.TASK)
    params = variables["params"] | {"logits_bias": variables["params"]["logits_bias"] * np.nan}
    with pytest.raises(WeightsError, match="not finite"):
        decode_n_best(model, {"params": params}, SOURCES[:1])


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_a_length_penalty_is_finite(alpha):
    model, variables = load_pretrained(cases.TASK)
    with pytest.raises(ConfigError, match="from -10 to 10"):
        beam_search(model, variables, np.array([[4, 5]]), alpha=alpha)
    with pytest.raises(ConfigError, match="from -10 to 10"):
        replace(stated_search(model), alpha=alpha)


@pytest.mark.parametrize("beams", [0, 257, 2.0])
def test_the_number_of_beams_has_a_range(beams):
    model, _ = load_pretrained(cases.TASK)
    with pytest.raises(ConfigError, match="from 1 to 256"):
        stated_search(model, beams=beams)
