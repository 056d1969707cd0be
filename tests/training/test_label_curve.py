"""The curve of scores by the number of labels, on a tiny network."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxformers.data import BundledMovies, TsvTexts
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.models import BertConfig, BertForPreTraining
from jaxformers.tasks import SequenceClassification
from jaxformers.tasks.processor import Processor
from jaxformers.text import WordPiece
from jaxformers.training import Adam, BertLinear, Experiment, LabelCurve
from jaxformers.training.label_curve import CAPTION, subset
from jaxformers.training.loop import train

MOVIES = BundledMovies(limit=96)
MODEL = BertConfig(
    vocab_size=201,
    width=16,
    heads=2,
    feed_forward=32,
    layers=1,
    max_length=24,
    dropout=0.0,
    attention_dropout=0.0,
)
SIGNS = replace(MODEL, label_names=MOVIES.own.names)
TASK = SequenceClassification(SIGNS, MOVIES, length=24, rows=8)
RUN = Experiment(
    "run",
    TASK,
    steps=6,
    optimizer=Adam(),
    schedule=BertLinear(peak=3e-2, warmup=1),
    vocab_multiple=8,
)
CURVE = LabelCurve(fine_tuned=RUN, from_scratch=RUN, labels=(24,), seeds=(3, 4))


@pytest.fixture(scope="module")
def pretrained():
    """A model with random weights in place of learnt ones, its variables and its tokenizer."""
    tokenizer = WordPiece.train(MOVIES.open(MOVIES.own).texts, MODEL.vocab_size, True)
    model = BertForPreTraining(MODEL, Execution(vocab_multiple=8))
    variables = model.init(jax.random.key(7), np.zeros((1, 1), np.int32))
    return model, variables, Processor(tokenizer)


@pytest.fixture(scope="module")
def evaluation(pretrained):
    """The curve's evaluation."""
    return CURVE.evaluate(*pretrained, final=True)


@pytest.mark.slow
def test_a_point_of_the_curve_is_the_mean_of_ordinary_runs(pretrained, evaluation, tmp_path):
    """Runs by `train` on the examples of each seed, written to a file, reach the same scores."""
    texts, scores = MOVIES.open(MOVIES.own), []
    pretrained[2].tokenizer.save(tmp_path / "tokenizer")
    for seed in CURVE.seeds:
        path = tmp_path / f"{seed}.tsv"
        rows = [(texts.texts[i], texts.labels[i]) for i in subset(96, 24, seed)]
        path.write_text("".join(f"{text}\t{label}\n" for text, label in rows))
        task = replace(
            TASK,
            data=TsvTexts(path=str(path), text_column=0, label_column=1),
            test=BundledMovies("test", limit=96),
            vocabulary=str(tmp_path / "tokenizer"),
        )
        result = train(replace(RUN, task=task, seed=seed), tmp_path / f"run_{seed}")
        scores.append(result.evaluation.metrics["test_accuracy"])
    assert evaluation.metrics["24_labels_from_scratch"] == pytest.approx(np.mean(scores), abs=1e-4)


@pytest.mark.slow
def test_the_evaluation_has_means_gains_a_table_and_a_figure(evaluation):
    metrics = evaluation.metrics
    for count in CURVE.labels:
        means = [metrics[f"{count}_labels_{name}"] for name in ("pretrained", "from_scratch")]
        assert metrics[f"{count}_labels_gain"] == pytest.approx(means[0] - means[1])
    assert list(evaluation.figures) == [CAPTION]
    assert "test_accuracy by labels" in evaluation.notes[0] and "2 seeds" in evaluation.notes[0]
    assert evaluation.notes[1].startswith("24 labels: pre-trained ")
    (table,) = CURVE.published(metrics)
    assert table.columns == ("24 labels",)
    assert table.ours == tuple(metrics[f"{count}_labels_pretrained"] for count in CURVE.labels)
    assert CURVE.published({}) == []


@pytest.mark.slow
def test_only_the_first_arm_starts_from_the_evaluated_weights(pretrained, evaluation):
    model, variables, processor = pretrained
    larger = jax.tree.map(lambda x: 30 * x, variables)
    metrics = CURVE.evaluate(model, larger, processor, final=True).metrics
    for system in ("from_scratch", "bag_of_words"):
        name = f"24_labels_{system}"
        assert metrics[name] == evaluation.metrics[name]
    assert metrics["24_labels_pretrained"] != evaluation.metrics["24_labels_pretrained"]


def test_nothing_is_trained_before_the_end(pretrained):
    assert CURVE.evaluate(*pretrained, final=False).metrics == {}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": ()}, "labels and seeds need at least one number"),
        ({"seeds": ()}, "labels and seeds need at least one number"),
        (
            dict.fromkeys(
                ("fine_tuned", "from_scratch"),
                replace(RUN, task=replace(TASK, data=TsvTexts(path="own.tsv"))),
            ),
            "there is no test set; set one in both tasks",
        ),
        (
            {"from_scratch": replace(RUN, task=replace(TASK, data=BundledMovies(limit=8)))},
            "both arms need the same data, dev and test",
        ),
        (
            {"fine_tuned": replace(RUN, task=replace(TASK, data=BundledMovies(kind="rating")))},
            "label_curve.fine_tuned: the task is to classify texts",
        ),
        ({"from_scratch": replace(RUN, average_last=2)}, "average_last is not supported, ema is"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        replace(CURVE, **changes)


def test_a_split_of_several_sets_or_without_labels_is_refused(pretrained, tmp_path):
    (tmp_path / "test.tsv").write_text("a text without a label\n")
    hidden = TsvTexts(path=str(tmp_path / "test.tsv"), label_column=None)
    run = replace(RUN, task=replace(TASK, test=hidden))
    curve = replace(CURVE, fine_tuned=run, from_scratch=run)
    with pytest.raises(ConfigError, match="the test split is not a single set with labels"):
        curve.evaluate(*pretrained, final=True)


def test_more_labels_than_there_are_examples_are_refused(pretrained):
    curve = replace(CURVE, labels=(24, 1000))
    with pytest.raises(ConfigError, match=r"1,000 examples of movie signs, train, which has 96"):
        curve.evaluate(*pretrained, final=True)
