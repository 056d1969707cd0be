"""Runs that follow another, begin from weights, and count their epochs."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.sharding import MeshConfig
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train
from jaxformers.training.run_directory import read_experiment
from jaxformers.training.state import with_pretrained_values

DEMO = Path(__file__).resolve().parents[2] / "experiments" / "bert" / "demo.py"


@pytest.fixture(scope="module")
def small():
    """Pre-training, then the same classifier from its weights and from fresh ones."""
    demo = load_experiment(DEMO)
    (tuned,) = demo.after
    scratch = replace(tuned, name="from_scratch", task=replace(tuned.task, weights=None))
    evaluators = demo.task.evaluators()
    return replace(demo, evaluators=evaluators, after=(tuned, scratch)).rehearse()


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "run"
    return folder, train(small, folder)


@pytest.mark.slow
def test_each_run_that_follows_lies_in_the_first_ones_folder(finished):
    folder, result = finished
    assert result.finished and len(result.after) == 2
    for name in ("fine_tuned-rehearsal", "from_scratch-rehearsal"):
        model, _ = jf.from_pretrained(folder / name)
        assert isinstance(model, jf.BertForSequenceClassification)
        assert (folder / name / "report.md").exists()


@pytest.mark.slow
def test_what_follows_begins_from_the_first_ones_weights_and_vocabulary(finished):
    folder, _ = finished
    task = read_experiment(folder / "fine_tuned-rehearsal").task
    assert task.weights == str(folder)
    scratch = read_experiment(folder / "from_scratch-rehearsal").task
    assert scratch.weights is None
    vocabulary = (folder / "tokenizer" / "vocab.txt").read_bytes()
    for name in ("fine_tuned-rehearsal", "from_scratch-rehearsal"):
        assert (folder / name / "tokenizer" / "vocab.txt").read_bytes() == vocabulary
    # Four small steps leave the pre-trained table near where it was, and far from another's.
    tables = [
        jf.from_pretrained(folder / name)[1]["params"]["bert"]["token_embedding"]["table"]
        for name in ("", "fine_tuned-rehearsal", "from_scratch-rehearsal")
    ]
    near, far = (np.abs(tables[0] - table).mean() for table in tables[1:])
    assert near < 0.2 * far


@pytest.mark.slow
def test_each_run_counts_its_own_time(finished):
    folder, _ = finished
    names = ("", "fine_tuned-rehearsal", "from_scratch-rehearsal")
    statuses = [json.loads((folder / name / "status.json").read_text()) for name in names]
    for before, now in pairwise(statuses):
        spent = sum(seconds for kind, seconds in now["seconds"].items() if kind != "time")
        assert 0 < spent <= now["time"] - before["time"]


@pytest.mark.slow
def test_a_finished_chain_is_not_trained_again(finished, small):
    folder, _ = finished
    again = train(small, folder)
    assert again.finished and not again.losses
    assert len(again.after) == 2 and not any(result.losses for result in again.after)


@pytest.mark.slow
def test_epochs_become_steps_by_the_size_of_the_data(small, tmp_path):
    tuned = replace(small.after[1], task=replace(small.after[1].task, vocabulary=None))
    task = replace(tuned.task, model=replace(tuned.task.model, vocab_size=201))
    result = train(replace(tuned, task=task, epochs=0.25), tmp_path / "run")
    assert result.step == 3  # 96 sentences, 8 a batch: 12 steps an epoch
    assert read_experiment(tmp_path / "run").steps == 3


def test_weights_that_do_not_fit_are_named():
    from tiny import EXPERIMENT, start

    with pytest.raises(WeightsError, match="params/encoder/norm"):
        with_pretrained_values(start(EXPERIMENT), {"params": {"encoder": {"norm": np.zeros(3)}}})


def test_a_moving_average_begins_from_the_given_weights(small):
    from jaxformers.sharding import make_mesh
    from jaxformers.training.state import init_state

    experiment = replace(small, ema=0.9, mesh=MeshConfig(1, 1, 1))
    mesh = make_mesh(experiment.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        state = jax.jit(lambda: init_state(experiment, model))()
        bias = np.arange(state.params["logits_bias"].size, dtype=np.float32)
        pretrained = with_pretrained_values(state, {"params": {"logits_bias": bias}})
    np.testing.assert_array_equal(pretrained.params["logits_bias"], bias)
    np.testing.assert_array_equal(pretrained.ema["logits_bias"], bias)
    np.testing.assert_array_equal(
        pretrained.params["transform"]["bias"], state.params["transform"]["bias"]
    )
