from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import f1_score

from jaxformers.data.text.glue import Glue
from jaxformers.data.text.movies import BundledMovies
from jaxformers.data.text.text_files import JsonlTexts, TsvTexts
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import BertConfig
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text.sequence_classification import SequenceClassification
from jaxformers.tasks.text.text_inference import classify
from jaxformers.text import WordPiece
from jaxformers.training.config.experiment_files import from_json, load_experiment, to_json
from jaxformers.training.config.overrides import override

WORDS = ["a", "the", "film", "is", "was", "good", "fine", "bad", "poor", "and", "very", "not"]
TOKENIZER = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
PROCESSOR = Processor(TOKENIZER)
SMALL = dict(width=16, heads=4, feed_forward=32, layers=1, max_length=16, vocab_size=17)
MODEL = BertConfig(**SMALL, dropout=0.0, attention_dropout=0.0)
GLUE = Path(__file__).resolve().parents[3] / "experiments" / "bert" / "glue.py"
RNG = np.random.default_rng(0)


def make_task(data, model=MODEL, **fields):
    return SequenceClassification(model, data, length=12, rows=8, **fields)


def init_model(task):
    model = task.module(Execution(vocab_multiple=8))
    variables = jax.jit(task.init, static_argnums=0)(model, jax.random.key(0))
    return model, jax.tree.map(lambda x: 8.0 * x, variables)  # logits that differ


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    TOKENIZER.save(folder)
    return str(folder)


def sentences(count):
    """Sentences of the words above; good where they say so."""
    rng, rows = np.random.default_rng(count), []
    for _ in range(count):
        mood = rng.integers(2)
        word = rng.choice([["bad", "poor"], ["good", "fine"]][mood])
        filling = " ".join(rng.choice(WORDS[:5], rng.integers(1, 5)))
        rows.append((f"{filling} {word} {filling}", int(mood)))
    return rows


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """One's own training and development files."""
    folder = tmp_path_factory.mktemp("own")
    for name, count in (("train", 64), ("dev", 21)):
        lines = [f"{text}\t{label}" for text, label in sentences(count)]
        (folder / f"{name}.tsv").write_text("\n".join(lines))
    return {name: TsvTexts(str(folder / f"{name}.tsv")) for name in ("train", "dev")}


# ---------------------------------------------------------------------- the loss


def computed(task):
    """A batch, its logits and its loss."""
    model, variables = init_model(task)
    batch = task.example(1)
    inputs = [batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")]

    @jax.jit
    def run(variables):
        return model.apply(variables, *inputs), task.loss(model, variables, batch)

    logits, loss = run(variables)
    return batch, np.asarray(logits, np.float64), loss


def test_the_loss_of_classes_is_the_mean_cross_entropy():
    batch, logits, loss = computed(make_task(BundledMovies()))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nll = -np.log(shares[np.arange(8), batch["labels"]])
    np.testing.assert_allclose(loss.total, nll.sum(), rtol=1e-5)
    right = int((logits.argmax(-1) == batch["labels"]).sum())
    assert (loss.weight, loss.metrics["accuracy"]) == (8, right)


def test_the_loss_of_numbers_is_the_mean_squared_error():
    batch, logits, loss = computed(make_task(BundledMovies(kind="rating")))
    errors = (logits[:, 0] - batch["labels"]) ** 2
    np.testing.assert_allclose(loss.total, errors.sum(), rtol=1e-5)
    assert loss.weight == 8 and not loss.metrics


@pytest.mark.parametrize("data", [BundledMovies(), BundledMovies(kind="rating")])
def test_made_up_batches_have_the_shapes_that_are_promised(data, vocabulary, tmp_path):
    task = make_task(data, vocabulary=vocabulary)
    opened = task.open(tmp_path, 0)
    batches = opened.batches(0, 0, 0, 1)
    for batch in (task.example(0), next(batches)):
        assert {n: (x.shape, x.dtype) for n, x in batch.items()} == {
            n: (s.shape, s.dtype) for n, s in task.batch_shapes()[0].items()
        }
    batches.close()
    assert task.units(task.example(0)) == 8
    assert opened.steps_per_epoch == len(opened.store) / 8
    assert "sentences" not in opened.describe() and "examples" in opened.describe()


# ---------------------------------------------------------------------- learning


def test_it_learns_which_sentences_are_good(own, vocabulary, tmp_path):
    task = make_task(own["train"], dev=own["dev"], vocabulary=vocabulary)
    data = task.open(tmp_path, 0)
    model = task.module(Execution())
    variables = jax.jit(task.init, static_argnums=0)(model, jax.random.key(0))
    tx = optax.adam(3e-3)

    @jax.jit
    def step(variables, state, batch):
        def mean(variables):
            loss = task.loss(model, variables, batch)
            return loss.total / loss.weight

        value, grads = jax.value_and_grad(mean)(variables)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(grads, state, variables)
        return optax.apply_updates(variables, updates), state, value

    state, batches = tx.init(variables), data.batches(0, 0, 0, 1)
    for _ in range(60):
        variables, state, _ = step(variables, state, next(batches))
    batches.close()
    evaluation = task.evaluators()[0].evaluate(model, variables, data.processor, final=True)
    assert evaluation.metrics["dev_accuracy"] == 100 and evaluation.metrics["dev_loss"] < 0.2
    assert len(evaluation.samples) == 21 and evaluation.samples[0][1] == evaluation.samples[0][2]
    assert not evaluation.outputs
    # The same weights, in a notebook.
    (good, share), (bad, _) = classify(
        model, variables, data.processor.tokenizer, ["the film is good", ("the film", "was poor")]
    )
    assert (good, bad) == ("1", "0") and 0.8 < share <= 1


def test_plain_texts_are_classified_alike_alone_and_together():
    config = BertConfig(**SMALL, labels=3, label_names=("a", "b", "c"))
    task = make_task(TsvTexts("x"), config)
    model, variables = init_model(task)
    texts = [text for text, _ in sentences(9)] + ["", ("good", "bad"), "good " * 40]
    together = classify(model, variables, TOKENIZER, texts, truncate=True, rows=4)
    alone = [classify(model, variables, TOKENIZER, [text], truncate=True)[0] for text in texts]
    assert [label for label, _ in together] == [label for label, _ in alone]
    np.testing.assert_allclose([p for _, p in together], [p for _, p in alone], atol=1e-5)
    assert len({round(share, 4) for _, share in together}) > 5
    assert {label for label, _ in together} <= {"a", "b", "c"}
    assert classify(model, variables, TOKENIZER, []) == []


def test_a_regression_gives_numbers():
    task = make_task(BundledMovies(kind="rating"))
    model, variables = init_model(task)
    (name, first), (_, second) = classify(model, variables, TOKENIZER, ["good", "bad film"])
    assert name == "score" and first != second


def test_outputs_on_a_mesh_are_those_of_one_device(own):
    task = make_task(own["train"], dev=own["dev"])
    model, variables = init_model(task)
    plain = task.evaluators()[0].outputs(model, variables, PROCESSOR, final=False)
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        sharded = task.evaluators()[0].outputs(model, variables, PROCESSOR, final=False)
    assert plain[0].shape == (21, 2) and plain[0].dtype == np.float32
    np.testing.assert_allclose(sharded[0], plain[0], atol=1e-5)


# ---------------------------------------------------------------------- judging

MNLI = ("index\tx\tsentence1\tsentence2", "\tgold_label")


@pytest.fixture
def mnli(tmp_path):
    def put(name, rows, label=True):
        lines = [MNLI[0] + MNLI[1] * label]
        lines += [f"{k}\tx\tpremise {k}\tfilm{f'{chr(9)}{r}' * label}" for k, r in enumerate(rows)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines))

    names = ("entailment", "neutral", "contradiction")
    put("train", names)
    put("dev_matched", names * 2)
    put("dev_mismatched", names[:2] * 2)
    put("test_matched", names, label=False)
    put("test_mismatched", names[:2], label=False)
    return Glue("mnli", folder=str(tmp_path))


def logits(classes, count):
    """Logits of which `classes` are the largest."""
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


def test_mnli_is_evaluated_on_both_sets_and_predicted_for_the_server(mnli):
    task = make_task(mnli)
    assert task.best == "dev_score" and task.labels.count == 3
    outputs = [[0, 1, 2, 0, 1, 0], [0, 0, 0, 0], [2, 1, 0], [1, 0]]
    evaluation = task.evaluators()[0].score([logits(c, 3) for c in outputs], PROCESSOR, final=True)
    assert evaluation.metrics["dev_matched_accuracy"] == pytest.approx(500 / 6)
    assert evaluation.metrics["dev_mismatched_accuracy"] == 50
    assert evaluation.metrics["dev_score"] == pytest.approx((500 / 6 + 50) / 2)
    assert evaluation.outputs == [
        *("index\tprediction", "0\tcontradiction", "1\tneutral", "2\tentailment"),
        *("index\tprediction", "0\tneutral", "1\tentailment"),
    ]
    assert evaluation.samples[0] == ("premise 0 / film", "entailment", "entailment")
    early = task.evaluators()[0].score([logits(c, 3) for c in outputs[:2]], PROCESSOR, final=False)
    assert early.metrics == evaluation.metrics and not early.outputs
    silent = make_task(mnli, predict=False)
    assert (
        not silent.evaluators()[0]
        .score([logits(c, 3) for c in outputs[:2]], PROCESSOR, final=True)
        .outputs
    )


def test_a_model_with_googles_order_of_the_classes_is_evaluated_by_it(mnli):
    names = ("contradiction", "entailment", "neutral")
    task = make_task(mnli, BertConfig(**SMALL, labels=3, label_names=names))
    assert task.module(Execution()).config.label_names == names
    outputs = [logits(c, 3) for c in ([1, 2, 0] * 2, [1, 2] * 2)]
    assert task.evaluators()[0].score(outputs, PROCESSOR, final=False).metrics["dev_score"] == 100


def test_f1_is_of_the_datas_class_1_wherever_the_classifier_has_it(tmp_path):
    labels, predictions = RNG.integers(0, 2, (2, 30))
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
    lines += [f"{label}\t1\t2\tgood\tbad" for label in labels]
    (tmp_path / "dev.tsv").write_text("\n".join(lines))
    names = ("equivalent", "not_equivalent")
    turned = make_task(Glue("mrpc", folder=str(tmp_path)), BertConfig(**SMALL, label_names=names))
    evaluation = turned.evaluators()[0].score([logits(1 - predictions, 2)], PROCESSOR, final=True)
    assert evaluation.metrics["dev_f1"] == pytest.approx(100 * f1_score(labels, predictions))
    assert evaluation.metrics["dev_accuracy"] == pytest.approx(100 * np.mean(labels == predictions))
    assert any("no test set was evaluated" in note for note in evaluation.notes)


def test_an_ensemble_is_evaluated_by_the_mean_of_the_outputs(own):
    task = make_task(own["train"], dev=own["dev"])
    right = np.array([label for _, label in sentences(21)])
    # Three members, each sure where it is right and unsure where it is wrong.
    members = []
    for k in range(3):
        wrong = np.arange(21) % 3 == k
        members.append([np.where(wrong[:, None], logits(1 - right, 2), 3 * logits(right, 2))])
    accuracies = [
        task.evaluators()[0].score(m, PROCESSOR, final=False).metrics["dev_accuracy"]
        for m in members
    ]
    mean = [np.mean([m[0] for m in members], axis=0)]
    assert max(accuracies) < 70
    assert task.evaluators()[0].score(mean, PROCESSOR, final=False).metrics["dev_accuracy"] == 100


def test_the_loss_of_a_set_is_the_mean_over_its_examples(own):
    task = make_task(own["train"], dev=own["dev"])
    model, variables = init_model(task)
    outputs = task.evaluators()[0].outputs(model, variables, PROCESSOR, final=False)
    right = np.array([label for _, label in sentences(21)])
    plain = optax.softmax_cross_entropy_with_integer_labels(outputs[0], jnp.asarray(right))
    evaluation = task.evaluators()[0].score(outputs, PROCESSOR, final=False)
    assert evaluation.metrics["dev_loss"] == pytest.approx(float(plain.mean()), rel=1e-5)


def test_numbers_are_evaluated_by_both_correlations():
    task = make_task(BundledMovies(kind="rating", limit=50))
    texts = BundledMovies("dev", "rating", 50)
    right = texts.open(texts.own).labels
    evaluation = task.evaluators()[0].score([right[:, None] * 2 + 1], PROCESSOR, final=False)
    assert evaluation.metrics["dev_pearson"] == pytest.approx(100)
    assert evaluation.metrics["dev_score"] == pytest.approx(100) and task.best == "dev_score"
    flat = task.evaluators()[0].score([np.ones((50, 1), np.float32)], PROCESSOR, final=False)
    assert flat.metrics["dev_pearson"] == 0 and "not defined" in flat.notes[0]


def test_outputs_that_are_not_finite_are_noted(own):
    task = make_task(own["train"], dev=own["dev"])
    evaluation = task.evaluators()[0].score(
        [np.full((21, 2), np.nan, np.float32)], PROCESSOR, final=False
    )
    assert any("outputs are not finite" in note for note in evaluation.notes)


def test_outputs_of_other_examples_are_refused(own):
    task = make_task(own["train"], dev=own["dev"])
    with pytest.raises(DataError, match=r"shapes \[\(20, 2\)\] for sets of shapes \[\(21, 2\)\]"):
        task.evaluators()[0].score([np.zeros((20, 2))], PROCESSOR, final=False)


# ---------------------------------------------------------------------- mistakes and choices


def test_the_data_decides_the_classes(own):
    assert make_task(Glue("mnli")).module(Execution()).config.labels == 3
    assert make_task(Glue("stsb")).module(Execution()).config.labels == 1
    assert make_task(Glue("stsb")).batch_shapes()[0]["labels"].dtype == jnp.float32
    three = BertConfig(**SMALL, labels=3, label_names=("a", "b", "c"))
    assert make_task(own["train"], three).module(Execution()).config == three
    assert [make_task(Glue(name)).best for name in ("rte", "mrpc")] == ["dev_accuracy", "dev_score"]
    assert make_task(BundledMovies(), metrics=("f1",)).best == "dev_f1"


def test_one_option_changes_the_data_and_all_that_follows_from_it():
    experiment = load_experiment(GLUE)
    words = "--task.data.task mnli --task.data.folder glue_data"
    changed = override(experiment, words.split(), "train").task
    assert (changed.labels.count, changed.best) == (3, "dev_score")
    assert changed.data.other("dev").folder == "glue_data"
    words = "--task.data tsv-texts --task.data.path a.tsv --task.model.labels 3"
    words += " --task.dev jsonl-texts --task.dev.path b.jsonl --task.data.header"
    changed = override(experiment, words.split(), "train")
    assert changed.task.data == TsvTexts("a.tsv", header=True) and changed.task.labels.count == 3
    assert changed.task.dev == JsonlTexts("b.jsonl") and changed.task.best == "dev_accuracy"
    assert from_json(to_json(changed)) == changed
    with pytest.raises(ConfigError, match="GLUE has no task 'mnlli'; did you mean mnli"):
        override(experiment, ["--task.data.task", "mnlli"], "train")


def test_mistakes_are_named_before_any_training(own, vocabulary, tmp_path):
    with pytest.raises(ConfigError, match="length is 17; it lies between 5 and the model's 16"):
        SequenceClassification(MODEL, own["train"], length=17)
    with pytest.raises(ConfigError, match="no metric 'acuracy'; did you mean accuracy"):
        make_task(own["train"], metrics=("acuracy",))
    with pytest.raises(ConfigError, match="pearson does not fit labels that are 0 to 1"):
        make_task(own["train"], metrics=("pearson",))
    path = tmp_path / "dev.jsonl"
    path.write_text('{"text": "good", "label": "fine"}')
    with pytest.raises(DataError, match=f"{path}, line 1: label 'fine' is not one of 0 to 1"):
        make_task(own["train"], dev=JsonlTexts(str(path)), vocabulary=vocabulary).open(tmp_path, 0)
    hidden = TsvTexts(own["train"].path, label_column=None)
    with pytest.raises(DataError, match="has no labels to train on"):
        make_task(hidden).open(tmp_path, 0)
    with pytest.raises(DataError, match="has no labels to evaluate with"):
        make_task(own["train"], dev=hidden).open(tmp_path, 0)
    larger = BertConfig(**(SMALL | {"vocab_size": 18}))
    with pytest.raises(ConfigError, match=r"set --task\.model\.vocab-size 17"):
        make_task(own["train"], larger, vocabulary=vocabulary).open(tmp_path / "other", 0)


@pytest.mark.parametrize("data", [Glue("mnli"), Glue("stsb")], ids=lambda data: data.task)
def test_the_rehearsal_needs_nothing_but_the_bundled_sentences(data, tmp_path):
    task = SequenceClassification(BertConfig.base(), data, weights="org/name").rehearsal()
    opened = task.open(tmp_path, 0)
    assert opened.processor.tokenizer.vocab_size == task.model.vocab_size
    assert len(opened.store) == 96 and task.labels.count == (1 if data.task == "stsb" else 2)
    assert 0 < opened.store.cut < 96
