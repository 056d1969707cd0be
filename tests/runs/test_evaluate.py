"""Judging finished runs: each alone, several as an ensemble, and the files to hand in."""

import gc
import json
import weakref
from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny
from etils import epath

from jaxformers.data import Glue, SquadJson
from jaxformers.errors import CheckpointError
from jaxformers.models import BertConfig
from jaxformers.runs import evaluate as judging
from jaxformers.runs import tune
from jaxformers.runs.evaluate import Mean, evaluate
from jaxformers.sharding import make_mesh
from jaxformers.tasks import Evaluation, Processor, SequenceClassification, SpanExtraction
from jaxformers.text import WordPiece
from jaxformers.training import BertLinear, Experiment, run_directory

WORDS = ["a", "the", "film", "is", "was", "good", "fine", "bad", "poor", "and", "very", "not"]
TOKENIZER = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
MODEL = BertConfig(
    vocab_size=17, width=16, heads=4, feed_forward=32, layers=1, max_length=16,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
RTE = SequenceClassification(MODEL, Glue("rte"), length=12, rows=8)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A run of two steps on files as GLUE has them, the test set without labels."""
    folder, rng = tmp_path_factory.mktemp("RTE"), np.random.default_rng(0)
    TOKENIZER.save(folder)
    for name, count in (("train", 16), ("dev", 11), ("test", 5)):
        lines = ["index\tsentence1\tsentence2" + "\tlabel" * (name != "test")]
        for index in range(count):
            texts = [" ".join(rng.choice(WORDS, 4)) for _ in range(2)]
            label = [("entailment", "not_entailment")[index % 2]] * (name != "test")
            lines.append("\t".join([str(index), *texts, *label]))
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    task = replace(RTE, data=Glue("rte", folder=str(folder)), vocabulary=str(folder))
    schedule = BertLinear(peak=1e-3, warmup_share=0.5)
    return Experiment("rte", task, steps=2, schedule=schedule, vocab_multiple=8)


@pytest.fixture(scope="module")
def tuned(experiment, tmp_path_factory):
    """Two real runs of a grid, both whole."""
    folder = tmp_path_factory.mktemp("tune")
    grid = {"schedule.peak": (0.03, 0.01)}
    return tune.tune(experiment, grid, folder=folder, keep_all=True)


def folders(tuned):
    return [tuned.folder / run.name for run in tuned.runs]


# ---------------------------------------------------------------------- a tune's runs


@pytest.mark.slow
def test_a_tune_trains_its_runs_and_takes_the_best_on_the_development_set(
    tuned, experiment, monkeypatch
):
    assert tuned.finished and tuned.metric == "dev_accuracy"
    assert tuned.value(tuned.best) == max(tuned.value(run) for run in tuned.runs)
    assert all(run_directory.is_finished(folder, 2) for folder in folders(tuned))
    assert [run_directory.read_experiment(f).schedule.peak for f in folders(tuned)] == [0.03, 0.01]
    # The same tune again trains nothing.
    monkeypatch.setattr(tune, "train", lambda *_: pytest.fail("it trained"))
    again = tune.tune(
        experiment, {"schedule.peak": (0.03, 0.01)}, folder=tuned.folder, keep_all=True
    )
    assert again == tuned


def test_a_run_that_a_tune_did_not_keep_says_where_its_weights_went(tuned, tmp_path):
    beaten = tmp_path / "beaten"
    file_names = ("experiment.json", "report.md")
    beaten.mkdir()
    for name in file_names:
        (beaten / name).write_bytes((folders(tuned)[0] / name).read_bytes())
    with pytest.raises(CheckpointError, match="a tune removes those of the runs"):
        run_directory.load_run(beaten)


# ---------------------------------------------------------------------- ensembles


def outputs_of(folder):
    """What the run's task, asked directly, says of the development and the test set."""
    experiment = run_directory.read_experiment(folder)
    mesh = make_mesh(experiment.mesh)
    with jax.set_mesh(mesh):
        model, variables = run_directory.load_run(folder, experiment.execution(mesh))
        return experiment.task.evaluators()[0].outputs(
            model, variables, experiment.task.processor(folder), final=True
        )


@pytest.mark.slow
def test_an_ensemble_is_evaluated_beside_its_runs_with_one_model_in_memory(tuned, monkeypatch):
    held, load = [], run_directory.load_run

    def watched(*args):
        gc.collect()
        assert not [reference for reference in held if reference() is not None]
        model, variables = load(*args)
        held.append(weakref.ref(jax.tree.leaves(variables)[0]))
        return model, variables

    monkeypatch.setattr(run_directory, "load_run", watched)
    a, b = folders(tuned)
    result = evaluate([a, b])
    monkeypatch.undo()
    dev, test = (np.mean(outputs, 0) for outputs in zip(outputs_of(a), outputs_of(b), strict=True))
    right = np.arange(11) % 2  # entailment, not entailment, in turn
    assert result["ensemble dev_accuracy"] == pytest.approx(100 * (dev.argmax(-1) == right).mean())
    values = {run.name: tuned.value(run) for run in tuned.runs}
    assert result[f"{a} dev_accuracy"] == pytest.approx(values[a.name])
    assert result[f"{b} dev_accuracy"] == pytest.approx(values[b.name])
    handed_in = (a / "ensemble" / "test.tsv").read_text().splitlines()
    classes = [("entailment", "not_entailment")[k] for k in test.argmax(-1)]
    assert handed_in == ["index\tprediction", *(f"{i}\t{c}" for i, c in enumerate(classes))]
    assert (a / "test.tsv").read_text().count("entailment") == 5
    for folder in (a, b, a / "ensemble"):
        assert f"predictions to hand in: {folder / 'test.tsv'}" in result.values()
    record = json.loads((a / "ensemble" / "evaluation.json").read_text())
    assert record["runs"] == [str(a), str(b)]


def test_one_run_is_no_ensemble(tuned):
    result = evaluate([folders(tuned)[0]] * 2)
    assert "dev_accuracy" in result and not [name for name in result if "ensemble" in name]


def test_the_mean_is_of_each_set_whatever_the_order():
    run_outputs = [
        [np.full((2, 3), v, np.float32), np.full((1, 2), -v, np.float32)] for v in (1, 2, 6)
    ]
    for order in (run_outputs, run_outputs[::-1]):
        mean = Mean()
        for outputs in order:
            mean.add(outputs)
        assert [array.dtype for array in mean.outputs] == [np.float32] * 2
        np.testing.assert_array_equal(mean.outputs[0], np.full((2, 3), 3.0))
        np.testing.assert_array_equal(mean.outputs[1], np.full((1, 2), -3.0))


def evaluate_tasks(monkeypatch, *tasks, tokenizers=(TOKENIZER, TOKENIZER)):
    """What `evaluate` gives for runs of these tasks, none of them computed."""
    base = replace(tiny.EXPERIMENT, name="x")
    runs = {
        f"runs/{n}": judging._Run(
            epath.Path(f"runs/{n}"), replace(base, task=task), Processor(tokenizer)
        )
        for n, (task, tokenizer) in enumerate(zip(tasks, tokenizers, strict=True))
    }
    monkeypatch.setattr(judging._Run, "open", lambda folder, fields: runs[str(folder)])
    monkeypatch.setattr(judging._Run, "evaluate", lambda *_: Evaluation({"m": 1.0}))
    monkeypatch.setattr(judging, "_write", lambda evaluation, *_, **__: evaluation.metrics)
    return evaluate(list(runs))


SQUAD = SpanExtraction(
    MODEL, SquadJson("a"), dev=SquadJson("b"), length=16, stride=4, query_length=8
)


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (RTE, replace(RTE, data=Glue("wnli")), "have different classes, development examples"),
        (RTE, replace(RTE, test=Glue("rte", "dev")), "have different test examples"),
        (RTE, SQUAD, "learned different tasks"),
        (SQUAD, replace(SQUAD, stride=3), "have different window sizes"),
        (SQUAD, replace(SQUAD, dev=SquadJson("c")), "have different development questions"),
    ],
)
def test_runs_that_differ_are_evaluated_alone_and_a_line_says_why(monkeypatch, first, second, why):
    result = evaluate_tasks(monkeypatch, first, second)
    assert result.pop("ensemble").startswith(f"none, for runs/0 and runs/1 {why}")
    assert result == {"runs/0 m": 1.0, "runs/1 m": 1.0}


def test_span_runs_of_other_vocabularies_have_no_common_mean(monkeypatch):
    other_tokenizer = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS[::-1]])
    result = evaluate_tasks(monkeypatch, SQUAD, SQUAD, tokenizers=(TOKENIZER, other_tokenizer))
    assert "have different vocabulary" in result["ensemble"]


def test_translations_stand_side_by_side_as_before(monkeypatch):
    task = tiny.EXPERIMENT.task
    result = evaluate_tasks(monkeypatch, task, task)
    assert result == {"runs/0 m": 1.0, "runs/1 m": 1.0}
