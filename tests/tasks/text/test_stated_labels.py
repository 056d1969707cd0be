"""Classes that the configuration of the weights names, for a fine-tuning that states none."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "fixtures"))

import bert_use as use

import jaxformers as jf
from jaxformers.data import BundledMovies, TsvTexts
from jaxformers.data.text.labelled_texts import Labels
from jaxformers.pretrained import stated_label_names
from jaxformers.tasks import SequenceClassification
from jaxformers.training.loop import train
from jaxformers.training.run_directory import read_experiment

NAMES = ("bad", "good", "neither")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return use.folder("classes", tmp_path_factory.mktemp("classes"))


@pytest.fixture
def task(weights, tmp_path):
    """Makes a task over the weights, whose data has these labels in turn."""

    def make(*labels, **changes):
        path = tmp_path / "own.tsv"
        path.write_text("".join(f"the film is good\t{label}\n" for label in labels * 4))
        model = replace(jf.from_pretrained(weights)[0].config, labels=2, label_names=())
        fields = dict(length=16, rows=4, weights=str(weights)) | changes
        return SequenceClassification(model, TsvTexts(str(path)), **fields)

    return make


def test_names_in_the_data_are_those_of_the_weights(task):
    assert task("good", "bad", "neither").resolved().labels == Labels(3, NAMES)
    assert task("0", "2").resolved().labels == Labels(3, NAMES)


def test_what_the_data_or_the_model_states_stays(task):
    assert task("0", "1").resolved().labels == Labels(2)  # two classes, of other weights
    own = task("x", "y")
    own = replace(own, model=replace(own.model, label_names=("x", "y")))
    assert own.resolved() is own
    bundled = replace(task("good"), data=BundledMovies(limit=8))
    assert bundled.resolved() is bundled
    assert task("good", weights=None).resolved().labels == Labels(2)


def test_names_are_read_from_published_folders_and_from_ours(weights, tmp_path):
    assert stated_label_names(weights) == NAMES
    jf.save_pretrained(*jf.from_pretrained(weights), tmp_path / "own", "jaxformers")
    assert stated_label_names(tmp_path / "own") == NAMES
    assert stated_label_names(use.folder("words", tmp_path / "words")) == ()
    assert stated_label_names(tmp_path / "nowhere") == ()


@pytest.mark.slow
def test_a_run_trains_saves_and_answers_by_them(task, tmp_path):
    fine_tuning = task("good", "bad", "neither", rows=8)
    experiment = jf.Experiment("names", fine_tuning, steps=1)
    train(experiment, tmp_path / "run")
    assert read_experiment(tmp_path / "run").task.labels == Labels(3, NAMES)
    ((label, _),) = jf.classify(tmp_path / "run", ["the film is good"])
    assert label in NAMES
    assert train(experiment, tmp_path / "run").finished  # the same command again is the same run
