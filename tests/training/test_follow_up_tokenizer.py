"""A multi-task run that follows the run of its image tokenizer: the Unified-IO demo, rehearsed."""

from pathlib import Path

import jax
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train
from jaxformers.training.run_directory import read_experiment

DEMO = Path(__file__).resolve().parents[2] / "experiments" / "unified_io" / "demo.py"


@pytest.mark.slow
def test_the_image_tokenizer_is_that_of_the_run_before_and_is_not_trained(tmp_path):
    experiment = load_experiment(DEMO).rehearse()
    folder = tmp_path / "run"
    assert train(experiment, folder).finished
    [follow_up] = experiment.after
    own = folder / follow_up.name
    assert read_experiment(own).task.image_tokenizer_weights == str(folder)
    _, tokenizer = jf.from_pretrained(folder)
    _, variables = jf.from_pretrained(own)
    ours = variables["params"]["image_tokenizer"]
    jax.tree.map(np.testing.assert_array_equal, ours, tokenizer["params"])
