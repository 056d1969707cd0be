"""Token classification as a task: its loss, its data, its evaluation, and what it refuses."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.data import BundledEntities, ConllFile, TfdsTags
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import BertConfig
from jaxformers.tasks import TokenClassification
from jaxformers.tasks.text.bert_inputs import INPUTS
from jaxformers.training import Adam, Experiment, Linear
from jaxformers.training.loop import train

FULL = TokenClassification(BertConfig(), BundledEntities())
SMALL = replace(FULL.rehearsal(), test=BundledEntities("held_out", 12))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return SMALL.open(tmp_path_factory.mktemp("run"), seed=0)


def one_hot(rows, names, tags):
    """Logits at the words of a set that predict `tags`."""
    classes = [names.index(tag) for sentence in tags for tag in sentence]
    logits = 9 * np.eye(len(names), dtype=np.float32)[classes]
    return logits * (np.concatenate(rows.words) >= 0)[:, None]


def test_the_loss_is_the_mean_cross_entropy_of_labelled_tokens():
    module = SMALL.module(Execution())
    variables = jax.jit(lambda: SMALL.init(module, jax.random.key(0)))()
    batch = SMALL.example(seed=1)
    labels = batch["labels"]
    assert (labels == -1).any() and (batch["attention_mask"] == 0).any()
    loss = jax.jit(lambda batch: SMALL.loss(module, variables, batch))(batch)
    logits = jax.jit(module.apply)(variables, *(batch[name] for name in INPUTS))
    logits = np.asarray(logits, np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    rows, columns = np.nonzero(labels >= 0)
    expected = -log_probabilities[rows, columns, labels[rows, columns]].mean()
    assert loss.weight == len(rows)
    np.testing.assert_allclose(loss.total / loss.weight, expected, rtol=1e-5)
    accuracy = (logits.argmax(-1) == labels)[rows, columns].mean()
    np.testing.assert_allclose(loss.metrics["accuracy"] / loss.weight, accuracy, rtol=1e-6)


def test_batches_hold_words_with_their_tags(opened):
    batch = next(opened.batches(seed=0, start=0, host=0, hosts=1))
    shapes = {name: array.shape for name, array in batch.items()}
    assert shapes == {name: spec.shape for name, spec in SMALL.batch_shapes()[0].items()}
    assert batch["labels"].max() < len(SMALL.label_names) and (batch["labels"] == -1).any()
    assert "96 sentences" in opened.describe()


def test_right_tags_score_full_marks(opened):
    (evaluator,) = replace(SMALL, model=replace(SMALL.model, max_length=96), length=96).evaluators()
    sets = evaluator.open_sets(opened.processor.tokenizer, final=True)
    assert [entry.name for entry in sets] == ["dev", "test"]
    outputs = [one_hot(e.rows, evaluator.names, e.sentences.tags) for e in sets]
    evaluation = evaluator.score(outputs, opened.processor, final=True)
    metrics = {name: value for name, value in evaluation.metrics.items() if "loss" not in name}
    assert len(metrics) == 8 and set(metrics.values()) == {100.0}
    assert evaluation.metrics["dev_loss"] < 0.01 and not evaluation.notes
    assert evaluation.samples[0][1] == evaluation.samples[0][2]
    lines, sentences = evaluation.outputs, sets[1].sentences
    assert lines[0].split() == [sentences.words[0][0], *2 * [sentences.tags[0][0]]]
    assert lines.count("") == len(sentences)
    with pytest.raises(DataError, match="outputs of shapes"):
        evaluator.score([outputs[0][:-1], outputs[1]], opened.processor, final=True)


def test_words_that_were_cut_off_count_as_outside_of_all_entities(opened):
    (evaluator,) = replace(SMALL, length=12, test=None).evaluators()
    (entry,) = evaluator.open_sets(opened.processor.tokenizer, final=False)
    outputs = [one_hot(entry.rows, evaluator.names, entry.sentences.tags)]
    evaluation = evaluator.score(outputs, opened.processor, final=False)
    tags, cut = np.concatenate(entry.sentences.tags), np.concatenate(entry.rows.words) < 0
    accuracy = 1 - ((tags != "O") & cut).mean()
    assert evaluation.metrics["dev_accuracy"] == pytest.approx(100 * accuracy)
    assert evaluation.metrics["dev_recall"] < 100 and evaluation.metrics["dev_loss"] < 0.01
    (note,) = evaluation.notes
    assert note.startswith(f"dev: {cut.sum()} words have no token in their row")


def test_classes_that_mark_no_entities_are_scored_by_accuracy(tmp_path):
    (tmp_path / "words.txt").write_text("the DT\nriver NN\n\nleft VB\n")
    data = ConllFile(str(tmp_path / "words.txt"), scheme="none")
    task = replace(SMALL, data=data, dev=data, test=None).resolved()
    assert task.label_names == ("DT", "NN", "VB") and task.model.labels == 3
    assert task.best == "dev_accuracy" and SMALL.best == "dev_f1"
    tokenizer = SMALL.open(tmp_path / "run", seed=0).processor
    (evaluator,) = task.evaluators()
    (entry,) = evaluator.open_sets(tokenizer.tokenizer, final=True)
    outputs = [one_hot(entry.rows, task.label_names, [["DT", "NN"], ["NN"]])]
    metrics = evaluator.score(outputs, tokenizer, final=True).metrics
    assert metrics.pop("dev_accuracy") == pytest.approx(200 / 3) and list(metrics) == ["dev_loss"]


def test_classes_are_those_of_all_sets_or_as_the_configuration_names_them(tmp_path):
    for name, entity_type in (("train", "b"), ("dev", "a")):
        (tmp_path / name).write_text(f"x B-{entity_type}\ny O\n")
    files = [ConllFile(str(tmp_path / name)) for name in ("train", "dev")]
    task = replace(SMALL, data=files[0], dev=files[1], test=None)
    assert task.resolved().label_names == ("O", "B-b", "I-b", "B-a", "I-a")
    names = ("I-a", "B-a", "O", "I-b", "B-b")
    named = replace(task, model=replace(task.model, labels=5, label_names=names))
    assert named.resolved() == named and named.module(Execution()).config.label_names == names


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="length is 33; it lies between 3 and the model's 32"):
        replace(SMALL, length=33)
    with pytest.raises(DataError, match="conll2003 is not prepared in"):
        replace(SMALL, data=TfdsTags(data_dir=str(tmp_path))).resolved()


def test_f1_is_compared_with_the_papers_on_conll_2003_alone():
    train, dev, test = (TfdsTags(split=split) for split in ("train", "dev", "test"))
    task = replace(FULL, model=replace(FULL.model, label_names=("O", "B-X"), labels=2), data=train)
    task = replace(task, dev=dev, test=test)
    (table,) = task.published({"dev_f1": 95.0, "test_f1": 91.5})
    assert table.ours == (95.0, 91.5) and ("BERT base, fine-tuned", (96.4, 92.4)) in table.rows
    assert "text around it" in table.note
    (table,) = replace(task, dev=TfdsTags(split="dev[:10%]")).published({"dev_f1": 95.0})
    assert table.ours == (95.0, None) and "not comparable" in table.note
    for data in (
        BundledEntities(),
        TfdsTags(feature="pos", scheme="none"),
        TfdsTags("conll2002/es"),
    ):
        assert replace(task, data=data).published({"dev_f1": 95.0}) == []


@pytest.mark.slow
def test_a_trained_run_tags_what_it_learned(tmp_path):
    """Learns three words by heart, from a file in IOB1, and tags them in a text."""
    rows = ["Ada I-PER\nmet O\nAda I-PER\nin O\nRome I-LOC\n", "Rome I-LOC\nmet O\nRome I-LOC\n"]
    (tmp_path / "train.txt").write_text("\n".join(rows * 8))
    data = ConllFile(str(tmp_path / "train.txt"), scheme="IOB1")
    model = replace(SMALL.model, dropout=0.0, attention_dropout=0.0, vocab_size=30)
    task = replace(SMALL, data=data, dev=data, test=None, model=model)
    experiment = Experiment(
        "tags", task, steps=60, optimizer=Adam(), schedule=Linear(peak=1e-2, warmup=5)
    )
    result = train(experiment, tmp_path / "run")
    assert result.evaluation.metrics["dev_f1"] == 100
    (row,) = jf.tag(str(tmp_path / "run"), "Rome met Ada Ada")
    assert [(e.text, e.label, e.start, e.end) for e in row] == [
        ("Rome", "LOC", 0, 4),
        ("Ada", "PER", 9, 12),
        ("Ada", "PER", 13, 16),
    ]
    report = (tmp_path / "run" / "report.md").read_text()
    assert "LOC: precision 100.00" in report
