"""Span extraction as a task: its loss, its data, its evaluation, and what it refuses."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.data.text.squad import BundledQuestions, SquadJson
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models import BertConfig
from jaxformers.pretrained import save_pretrained
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks import Evaluation
from jaxformers.tasks.text.span_answers import answer
from jaxformers.tasks.text.span_extraction import SpanExtraction
from jaxformers.training import Experiment
from jaxformers.training.loop import train

FULL = SpanExtraction(BertConfig(), BundledQuestions())
REHEARSAL = FULL.rehearsal()
SMALL = replace(
    REHEARSAL,
    model=replace(REHEARSAL.model, max_length=96),
    length=96,
    stride=32,
    dev=BundledQuestions("held_out", 20),
    test=BundledQuestions("held_out", 12, impossible=True),
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return SMALL.open(tmp_path_factory.mktemp("run"), seed=0)


@pytest.fixture(scope="module")
def model():
    module = SMALL.module(Execution())
    return module, jax.jit(lambda: SMALL.init(module, jax.random.key(0)))()


def oracle(task, tokenizer, final=True):
    """Logits that point at the right places, and at [CLS] where a window holds no answer."""
    outputs = []
    for _, windows in task.evaluators()[0].open_sets(tokenizer, final=final):
        logits, rows = np.zeros((len(windows), 2, task.length), np.float32), np.arange(len(windows))
        for side in (0, 1):
            logits[rows, side, windows.labels[:, side]] = 10.0
        outputs.append(logits)
    return outputs


def test_the_loss_is_the_mean_cross_entropy_of_both_places_over_all_tokens(model):
    module, variables = model
    batch = SMALL.example(seed=1)
    assert (batch["attention_mask"] == 0).any()
    out = module.apply(
        variables, *(batch[n] for n in ("input_ids", "token_type_ids", "attention_mask"))
    )
    total = 0.0
    for logits, positions in ((out.start_logits, batch["starts"]), (out.end_logits, batch["ends"])):
        for row, position in zip(np.asarray(logits, np.float64), positions, strict=True):
            total -= 0.5 * np.log(np.exp(row[position]) / np.exp(row).sum())
    loss = SMALL.loss(module, variables, batch)
    assert float(loss.weight) == SMALL.rows
    assert float(loss.total) == pytest.approx(total, rel=1e-5)


def test_the_logits_of_padding_count_in_the_loss(model):
    class Spiked:
        @staticmethod
        def apply(variables, ids, types, mask, **kwargs):
            out = module.apply(variables, ids, types, mask, **kwargs)
            return out._replace(start_logits=jnp.where(mask == 0, 50.0, out.start_logits))

    module, variables = model
    batch = SMALL.example(seed=1)
    plain, spiked = (SMALL.loss(m, variables, batch).total for m in (module, Spiked))
    assert float(spiked) > float(plain) + 20


def test_batches_have_the_shapes_that_were_told(opened):
    batch = next(opened.batches(seed=0, start=0, host=0, hosts=1))
    shapes = SMALL.batch_shapes()[0]
    assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
        n: (s.shape, s.dtype) for n, s in shapes.items()
    }
    example = SMALL.example(seed=0)
    assert {n: a.shape for n, a in example.items()} == {n: s.shape for n, s in shapes.items()}
    assert (example["starts"] <= example["ends"]).all()
    assert SMALL.units(batch) == SMALL.rows


def test_two_hosts_share_the_batch_of_one_and_a_late_start_skips_nothing(opened):
    single_host = opened.batches(seed=3, start=0, host=0, hosts=1)
    batches = [next(single_host) for _ in range(4)]
    for host in (0, 1):
        share = next(opened.batches(seed=3, start=3, host=host, hosts=2))
        rows = slice(4 * host, 4 * host + 4)
        assert all((share[name] == batches[3][name][rows]).all() for name in share)


def test_the_data_tells_its_size_and_what_it_depends_on(opened):
    assert opened.steps_per_epoch == len(opened.store) / SMALL.rows
    assert opened.describe().startswith("48 questions; ")
    assert {"content", "tokenizer", "windows", "plan", "questions"} <= set(opened.fingerprint)
    json.dumps(opened.fingerprint)


@pytest.mark.parametrize("name", ["dev", "test"])
def test_mistakes_in_questions_for_the_evaluation_show_before_training(name, tmp_path):
    answers = [{"text": "cat", "answer_start": 3}]
    qas = [{"id": "q0", "question": "who sat", "answers": answers}]
    data = {"data": [{"paragraphs": [{"context": "the cat sat", "qas": qas}]}]}
    (tmp_path / "x.json").write_text(json.dumps(data))
    task = replace(SMALL, **{name: SquadJson(str(tmp_path / "x.json"))})
    with pytest.raises(DataError, match="'q0': the answer 'cat' does not stand at offset 3"):
        task.open(tmp_path / "run", seed=0)


def test_questions_without_a_place_are_left_out_and_told(tmp_path):
    context = "the cat sat on a mat \u200b and the dog sat on the cat " * 9
    answers = [("q0", "cat", 4), ("q1", "\u200b", 21), ("q2", "dog", 0), ("q3", "ca", 4)]
    qas = [
        {"id": i, "question": "who sat on the mat", "answers": [{"text": t, "answer_start": s}]}
        for i, t, s in answers
    ]
    data = {"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}
    (tmp_path / "x.json").write_text(json.dumps(data))
    task = replace(
        SMALL,
        data=SquadJson(str(tmp_path / "x.json"), mismatched="skip"),
        model=replace(SMALL.model, vocab_size=35),
    )
    description = task.open(tmp_path / "run", seed=0).describe()
    assert description.startswith(
        "2 questions, 2 without an answer in the text left out, "
        "1 with an answer that ends inside a piece; "
    )


def test_oracle_logits_score_100_on_both_kinds_of_set(opened):
    evaluation = SMALL.evaluators()[0].score(
        oracle(SMALL, opened.processor.tokenizer), opened.processor, final=True
    )
    assert evaluation.metrics["exact"] == evaluation.metrics["f1"] == 100
    assert "best_f1" not in evaluation.metrics
    assert evaluation.metrics["test_exact"] == evaluation.metrics["test_best_f1"] == 100
    assert evaluation.metrics["test_NoAns_exact"] == 100
    questions = list(SMALL.test.open())
    expected = [q.answers[0] if q.answers else "" for q in questions]
    assert [sample[2] for sample in evaluation.samples] == expected
    assert evaluation.samples[0][0] == questions[0].question
    assert evaluation.outputs == [
        f"{q.id}\t{text}" for q, text in zip(questions, expected, strict=True)
    ]
    development = SMALL.evaluators()[0].score(
        oracle(SMALL, opened.processor.tokenizer, False), opened.processor, final=False
    )
    assert set(development.metrics) == {n for n in evaluation.metrics if not n.startswith("test_")}


@pytest.mark.parametrize("impossible", [False, True])
def test_questions_without_labels_are_answered_and_not_scored(opened, tmp_path, impossible):
    questions = list(SMALL.test.open())
    rows = [dict(id=n, context=q.context, question=q.question) for n, q in enumerate(questions)]
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    dev = BundledQuestions("held_out", 20, impossible=impossible)
    task = replace(SMALL, dev=dev, test=SquadJson(str(path)))
    logits = oracle(task, opened.processor.tokenizer)
    logits[1][:] = oracle(SMALL, opened.processor.tokenizer)[1]
    evaluation = task.evaluators()[0].score(logits, opened.processor, final=True)
    assert not any(name.startswith("test_") for name in evaluation.metrics)
    header, *lines = evaluation.predictions["test"]
    answers = [line.split("\t") for line in lines]
    assert header == "id\tanswer" and [name for name, _ in answers] == list(map(str, range(12)))
    labelled = [
        (text, q.answers[0]) for (_, text), q in zip(answers, questions, strict=True) if q.answers
    ]
    assert all(text == answer for text, answer in labelled)
    empty = [text == "" for (_, text), q in zip(answers, questions, strict=True) if not q.answers]
    assert len(empty) == 4 and all(was is impossible for was in empty)


def test_a_data_file_that_has_changed_is_read_again(opened, tmp_path):
    question = SMALL.test.open()[0]
    row = dict(id="a", context=question.context, question=question.question)
    answers = {"text": [question.answers[0]], "answer_start": [question.starts[0]]}
    path = tmp_path / "dev.json"
    task = replace(SMALL, dev=SquadJson(str(path)))
    sizes = []
    for count in (1, 2):
        path.write_text(json.dumps([row | dict(id=str(n), answers=answers) for n in range(count)]))
        ((_, windows),) = task.evaluators()[0].open_sets(opened.processor.tokenizer, final=False)
        sizes.append(len(windows.asked))
    assert sizes == [1, 2]


@pytest.mark.parametrize(("threshold", "answered"), [(-100.0, 0), (0.0, 8), (100.0, 12)])
def test_no_answer_wins_where_it_exceeds_the_best_span_by_the_threshold(
    opened, threshold, answered
):
    task = replace(SMALL, dev=SMALL.test, null_threshold=threshold)
    evaluation = task.evaluators()[0].score(
        oracle(task, opened.processor.tokenizer, False), opened.processor, final=False
    )
    impossible = sum(q.impossible for q in task.dev.open())
    assert impossible == 4
    assert sum(bool(prediction) for _, _, prediction in evaluation.samples) == answered
    assert evaluation.metrics["best_exact"] == 100


def test_outputs_of_several_models_can_be_averaged(opened, model):
    module, variables = model
    once = SMALL.evaluators()[0].outputs(module, variables, opened.processor, final=True)
    assert [logits.shape[1:] for logits in once] == [(2, SMALL.length)] * 2
    assert all(logits.dtype == np.float32 for logits in once)
    mean = [
        (a + b) / 2 for a, b in zip(once, oracle(SMALL, opened.processor.tokenizer), strict=True)
    ]
    assert SMALL.evaluators()[0].score(mean, opened.processor, final=True).metrics["exact"] == 100
    own = SMALL.evaluators()[0].evaluate(module, variables, opened.processor, final=True)
    assert isinstance(own, Evaluation)
    assert own.metrics == SMALL.evaluators()[0].score(once, opened.processor, final=True).metrics
    with pytest.raises(DataError, match="same questions, vocabulary, length and stride"):
        SMALL.evaluators()[0].score([once[0][1:], once[1]], opened.processor, final=True)


def test_outputs_on_a_mesh_are_those_of_one_device(opened, model):
    module, variables = model
    alone = SMALL.evaluators()[0].outputs(module, variables, opened.processor, final=False)
    with jax.set_mesh(make_mesh(MeshConfig(8))):
        shared = (
            replace(SMALL, rows=6)
            .evaluators()[0]
            .outputs(module, variables, opened.processor, final=False)
        )
    np.testing.assert_allclose(shared[0], alone[0], atol=1e-5)


def test_a_model_answers_any_question(opened, model):
    module, variables = model
    context = "Choose the name of the table."
    answers = answer(
        module, variables, opened.processor.tokenizer, ["Which word follows the?"], [context]
    )
    assert answers[0].text == context[answers[0].start : answers[0].end]
    assert np.isfinite(answers[0].score)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 97}, "longer than the model's 96 positions; lower --task.length"),
        ({"length": 19}, "leave no room for the context"),
        ({"stride": 0}, "stride is 0; it is a whole number, at least 1"),
        ({"rows": 0}, "at least 1"),
        ({"n_best": 0}, "at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ConfigError, match=message) as error:
        replace(SMALL, **change)
    assert "\n" not in str(error.value)


def test_questions_need_the_second_segment_of_the_tokenizers_template(tmp_path):
    task = replace(SMALL, model=replace(SMALL.model, type_vocab_size=1))
    with pytest.raises(ConfigError, match="into segment 1: set type_vocab_size to 2"):
        task.open(tmp_path, seed=0)


def test_a_vocabulary_of_another_size_than_the_models_is_refused(opened, tmp_path):
    opened.processor.tokenizer.save(tmp_path / "vocabulary")
    wrong = replace(
        SMALL, vocabulary=str(tmp_path / "vocabulary"), model=replace(SMALL.model, vocab_size=152)
    )
    with pytest.raises(ConfigError, match=r"--task\.model\.vocab-size 151"):
        wrong.open(tmp_path / "run", seed=0)
    reopened = replace(wrong, model=SMALL.model).open(tmp_path / "other", seed=0)
    assert reopened.processor.tokenizer.fingerprint == opened.processor.tokenizer.fingerprint


def test_a_run_starts_from_the_encoder_head_and_vocabulary_of_weights(opened, model, tmp_path):
    module, variables = model
    save_pretrained(module, variables, tmp_path / "weights", tokenizer=opened.processor.tokenizer)
    task = replace(SMALL, weights=str(tmp_path / "weights"), data=SMALL.dev)
    start = task.pretrained(module)
    jax.tree.map(np.testing.assert_array_equal, start, {"params": variables["params"]})
    assert (
        task.open(tmp_path / "run", seed=0).processor.tokenizer.fingerprint
        == opened.processor.tokenizer.fingerprint
    )
    assert SMALL.pretrained(module) == {}


@pytest.mark.slow
def test_the_rehearsal_trains_and_reports(tmp_path):
    experiment = Experiment("squad", replace(FULL, data=BundledQuestions(impossible=True)), steps=9)
    result = train(experiment.rehearse(), tmp_path)
    assert result.finished
    assert {"exact", "f1", "best_f1", "HasAns_f1"} <= set(result.evaluation.metrics)
    assert (tmp_path / "report.md").exists()
