"""BERT's pre-training as a task: its loss, its batches on meshes, its rehearsal, its evaluation."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import bert_cases as cases

import jaxformers as jf
from jaxformers.data import BundledDocuments, Phase, Pretraining, TextFolder
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.sharding import MeshConfig
from jaxformers.tasks import MaskedLanguage
from jaxformers.training import BertAdam, BertLinear, Experiment
from jaxformers.training.state import TrainState, make_transformation
from jaxformers.training.step import make_step

PLAIN = jf.BertConfig(
    vocab_size=67,
    width=16,
    heads=4,
    feed_forward=32,
    layers=2,
    max_length=32,
    dropout=0.0,
    attention_dropout=0.0,
)


def task_of(config=PLAIN, **changes):
    phase = Phase(cases.LENGTH, 6, 4, steps=None)
    return MaskedLanguage(config, BundledDocuments(), pretraining=Pretraining((phase,), **changes))


def test_the_loss_is_the_released_codes():
    task = task_of()
    model = task.module(Execution())
    variables = task.init(model, jax.random.key(0))
    batch = cases.training_batch(3)
    batch["masked_weights"][:2] = 0.0  # rows without a masked word count in the other loss alone
    loss = task.loss(model, variables, task.prepare(batch))
    names = ("input_ids", "token_type_ids", "attention_mask", "masked_positions")
    out = model.apply(variables, *(batch[name] for name in names))
    words = np.asarray(jax.nn.log_softmax(out.mlm_logits), np.float64)
    token_losses = -np.take_along_axis(words, batch["masked_ids"][..., None], -1)[..., 0]
    used = batch["masked_weights"]
    mlm = (token_losses * used).sum() / (used.sum() + 1e-5)
    pairs = np.asarray(jax.nn.log_softmax(out.nsp_logits), np.float64)
    nsp = -pairs[np.arange(6), batch["next_sentence"]].mean()
    np.testing.assert_allclose(loss.total / loss.weight, mlm + nsp, rtol=1e-6)
    np.testing.assert_allclose(loss.metrics["mlm_loss"], mlm, rtol=1e-6)
    np.testing.assert_allclose(loss.metrics["nsp_loss"], nsp, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("microbatches", [2, 3])
def test_a_batch_in_parts_gives_the_same_update_as_a_whole(microbatches):
    steps = {}
    for count in (1, microbatches):
        experiment = Experiment("parts", task_of(), steps=5, accumulate=count)
        model = experiment.task.module(Execution())
        tx = make_transformation(experiment)
        params = experiment.task.init(model, jax.random.key(0))["params"]
        state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {}, None)
        _, steps[count] = jax.jit(make_step(experiment, model))(state, cases.training_batch(0))
    for name in ("loss", "mlm_loss", "nsp_loss", "nsp_accuracy", "grad_norm"):
        np.testing.assert_allclose(
            steps[microbatches][name], steps[1][name], rtol=1e-5, err_msg=name
        )


def test_twenty_updates_follow_the_released_code(tmp_path):
    """Both losses, clipping, the schedule and Adam, from the same weights, in our own step."""
    tensors = cases.weights(cases.TRAINED, 0, 0.1)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(cases.TRAINED))
    model, variables = jf.from_pretrained(tmp_path)
    config = replace(model.config, dropout=0.0, attention_dropout=0.0)
    model = model.clone(config=config)
    phase = Phase(cases.LENGTH, 6, 4, steps=None)
    experiment = Experiment(
        name="follow",
        task=MaskedLanguage(config, BundledDocuments(), pretraining=Pretraining((phase,))),
        steps=cases.STEPS,
        optimizer=BertAdam(weight_decay=cases.DECAY),
        schedule=BertLinear(cases.PEAK, cases.WARMUP),
        clip_norm=cases.CLIP,
    )
    tx = make_transformation(experiment)
    step = jax.jit(make_step(experiment, model))
    params, losses = variables["params"], []
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {}, None)
    for number in range(cases.STEPS):
        state, metrics = step(state, cases.training_batch(number))
        losses.append(float(metrics["loss"]))
    golden = json.loads(cases.TRAINING.read_text())
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-4)
    table = np.asarray(state.params["bert"]["token_embedding"]["table"])[::7, ::5].ravel()
    np.testing.assert_allclose(table, golden["table"], rtol=0, atol=1e-4)


def test_chinese_documents_have_true_and_random_next_sentences(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))
    sentences = ["今天天气很好", "我们去公园", "你来吗", "他说不来"]
    for number in range(12):
        text = "".join(f"{sentences[(number + i) % 4]}{'。！？'[i % 3]}" for i in range(9))
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    task = replace(task_of(), model=replace(PLAIN, vocab_size=27))
    opened = replace(task, data=TextFolder(str(tmp_path / "texts"))).open(tmp_path / "run", seed=0)
    batch = next(opened.batches(0, 0, 0, 1))
    assert set(batch["next_sentence"].tolist()) == {0, 1}
    assert "single sentence" not in opened.describe()


def test_documents_of_one_sentence_are_named_where_next_sentences_are_learned(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts.txt").write_text("first line\n\nsecond line\n\nTwo. Sentences.\n\n" * 3)
    data = TextFolder(str(tmp_path / "texts.txt"), documents="blank_lines")
    task = replace(task_of(), data=data, model=replace(PLAIN, vocab_size=35))
    line = task.open(tmp_path / "run", seed=0).describe()
    assert "; 6 documents hold a single sentence" in line and "no-next-sentence" in line
    alone = replace(task, pretraining=replace(task.pretraining, next_sentence=False))
    assert "single sentence" not in alone.open(tmp_path / "run", seed=0).describe()


def test_rows_longer_than_the_model_are_refused():
    with pytest.raises(ConfigError, match="rows of 13 tokens are longer than the model's 12"):
        task_of(replace(PLAIN, max_length=12))


def test_next_sentences_need_their_head():
    with pytest.raises(ConfigError, match="pooler and next_sentence"):
        task_of(replace(PLAIN, next_sentence=False))
    task_of(replace(PLAIN, next_sentence=False), next_sentence=False)


def test_masked_words_need_their_head():
    with pytest.raises(ConfigError, match=r"--task\.model\.masked-words$"):
        task_of(replace(PLAIN, masked_words=False))


def test_development_documents_that_are_not_there_are_told_before_training(tmp_path):
    task = replace(two_phases(True).task, dev=TextFolder(str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"no folder .*nowhere of text files"):
        task.open(tmp_path / "run", seed=0)


def two_phases(next_sentence):
    phases = (Phase(24, 8, 4, steps=2), Phase(32, 16, 6))
    config = replace(PLAIN, vocab_size=401, dropout=0.1, next_sentence=next_sentence)
    return Experiment(
        name="two",
        task=MaskedLanguage(
            config,
            BundledDocuments("held_out"),
            BundledDocuments("held_out"),
            Pretraining(phases, next_sentence=next_sentence),
            dev_batches=2,
        ),
        steps=4,
        optimizer=BertAdam(),
        schedule=BertLinear(1e-3, 1),
        mesh=MeshConfig(data=-1, fsdp=2, tensor=2),
        vocab_multiple=8,
    )


@pytest.mark.slow
@pytest.mark.default_cases(1)
@pytest.mark.parametrize("next_sentence", [True, False], ids=["pairs", "packed"])
def test_a_run_of_two_phases_trains_and_is_evaluated(next_sentence, tmp_path):
    result = jf.train(two_phases(next_sentence), tmp_path / "run")
    assert result.finished and sorted(result.losses) == [1, 2, 3, 4]
    names = {"dev_loss", "dev_mlm_loss", "dev_mlm_accuracy", "dev_mlm_perplexity"}
    names |= {"dev_nsp_loss", "dev_nsp_accuracy"} if next_sentence else set()
    assert set(result.evaluation.metrics) == names
    assert 5.0 < result.evaluation.metrics["dev_mlm_loss"] < 7.0  # chance is log 401 = 5.99
    model, variables = jf.from_pretrained(tmp_path / "run")
    assert isinstance(model, jf.BertForPreTraining)
    assert variables["params"]["bert"]["token_embedding"]["table"].shape[0] == 401
    # Another head starts from this run.
    classifier = jf.BertForSequenceClassification(model.config)
    params = jf.pretrained.load_text_backbone(tmp_path / "run", classifier)
    np.testing.assert_array_equal(
        params["bert"]["token_embedding"]["table"],
        variables["params"]["bert"]["token_embedding"]["table"],
    )
