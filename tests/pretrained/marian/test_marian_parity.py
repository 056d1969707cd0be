"""MarianMT against Hugging Face: logits, round trips, and twenty steps of training."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy
from marian_folders import SMALL, cases, small, write

from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.tasks.losses import label_smoothed_loss

NAMES = list(cases.CASES)


def load_case(name, folder, execution=Execution()):  # noqa: B008
    config, seed = cases.CASES[name], NAMES.index(name)
    tensors = cases.weights(config, seed)
    model, variables = load_pretrained(write(folder, config, tensors), execution)
    return model, variables, tensors, cases.batch(config, seed)


def logits_of(model, variables, batch):
    return np.asarray(
        jax.jit(model.apply)(variables, batch["source"], batch["target"], batch["mask"])
    )


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_hugging_faces(name, tmp_path):
    model, variables, _, batch = load_case(name, tmp_path)
    expected = np.load(cases.LOGITS)[name]
    np.testing.assert_allclose(logits_of(model, variables, batch), expected, rtol=0, atol=3e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_hugging_faces_on_the_path_of_tpus(name, tmp_path):
    model, variables, _, batch = load_case(name, tmp_path, Execution(target="tpu"))
    expected = np.load(cases.LOGITS)[name]
    np.testing.assert_allclose(logits_of(model, variables, batch), expected, rtol=0, atol=3e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    model, variables, tensors, _ = load_case(name, tmp_path / "theirs")
    save_pretrained(model, variables, tmp_path / "ours", format="marian")
    saved = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    assert saved.keys() == tensors.keys()
    assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    fields = cases.CASES[name].keys() - {"bad_words_ids"}
    assert {key: config[key] for key in fields} == {key: cases.CASES[name][key] for key in fields}
    assert load_pretrained(tmp_path / "ours")[0].config == model.config


def test_a_padded_vocabulary_changes_no_logit_and_is_not_published(tmp_path):
    model, variables, tensors, batch = load_case(NAMES[0], tmp_path)
    padded, stored = load_pretrained(tmp_path, Execution(vocab_multiple=8))
    assert stored["params"]["token_embedding"]["table"].shape[0] == 104
    got = logits_of(padded, stored, batch)
    np.testing.assert_array_equal(got[..., :97], logits_of(model, variables, batch))
    assert (got[..., 97:] < -1e8).all()
    save_pretrained(padded, stored, tmp_path / "saved")
    saved = safetensors.numpy.load_file(tmp_path / "saved" / "model.safetensors")
    assert np.array_equal(saved["model.shared.weight"], tensors["model.shared.weight"])
    assert np.array_equal(saved["final_logits_bias"], tensors["final_logits_bias"])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(kind, tmp_path):
    tensors = {name: value.astype(kind) for name, value in cases.weights(SMALL, 0).items()}
    _, variables = load_pretrained(write(tmp_path, SMALL, tensors))
    table = variables["params"]["token_embedding"]["table"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    np.testing.assert_array_equal(table, tensors["model.shared.weight"].astype(np.float32))


def test_a_sharded_folder_loads_like_a_whole_one(tmp_path):
    folder = small(tmp_path)
    _, expected = load_pretrained(folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(sorted(tensors)):
        weight_map[name] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
    for file in set(weight_map.values()):
        shard = {name: value for name, value in tensors.items() if weight_map[name] == file}
        safetensors.numpy.save_file(shard, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _, actual = load_pretrained(folder)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("alias", ["lm_head.weight", "model.decoder.embed_tokens.weight"])
def test_a_tied_table_may_stand_under_any_of_its_names(alias, tmp_path):
    tensors = cases.weights(SMALL, 0)
    table = tensors["model.shared.weight"]
    twice = write(tmp_path / "twice", SMALL, tensors | {alias: table})
    del tensors["model.shared.weight"]
    alone = write(tmp_path / "alone", SMALL, tensors | {alias: table})
    for folder in (twice, alone):
        _, variables = load_pretrained(folder)
        np.testing.assert_array_equal(variables["params"]["token_embedding"]["table"], table)


def test_a_missing_bias_of_the_logits_is_zero(tmp_path):
    tensors = cases.weights(SMALL, 0)
    del tensors["final_logits_bias"]
    _, variables = load_pretrained(write(tmp_path, SMALL, tensors))
    assert not np.any(variables["params"]["logits_bias"])


def test_generation_settings_come_from_their_own_file_where_there_is_one(tmp_path):
    own = {"bad_words_ids": [[5], [9]], "eos_token_id": 3, "decoder_start_token_id": 4}
    config = small(tmp_path / "a", generation_config=own) and load_pretrained(tmp_path / "a")[0]
    c = config.config
    assert (c.banned_ids, c.forced_eos_id, c.eos_id, c.start_id, c.pad_id) == (
        (5, 9),
        None,
        3,
        4,
        96,
    )
    c = load_pretrained(small(tmp_path / "b"))[0].config
    assert (c.banned_ids, c.forced_eos_id, c.eos_id, c.start_id) == ((96,), 0, 0, 96)
    banned = {"bad_words_ids": [[0], [7]]}  # the end of sentence cannot be banned there
    assert load_pretrained(small(tmp_path / "c", banned))[0].config.banned_ids == (7,)


def test_a_config_as_opus_mt_publishes_it_loads(tmp_path):
    more = {
        "_num_labels": 3,
        "add_bias_logits": False,
        "add_final_layer_norm": False,
        "architectures": ["MarianMTModel"],
        "bos_token_id": 0,
        "classif_dropout": 0.0,
        "extra_pos_embeddings": 97,
        "id2label": {"0": "LABEL_0"},
        "max_length": 40,
        "normalize_before": False,
        "normalize_embedding": False,
        "num_beams": 6,
        "num_hidden_layers": 6,
        "static_position_embeddings": True,
    }
    assert load_pretrained(small(tmp_path, more))[0].config.encoder_layers == 3


@pytest.mark.slow
def test_twenty_steps_of_adam_give_the_references_losses(tmp_path):
    # There, lookups of the padding token (the start with it) and the bias of the logits, a buffer,
    # take no gradient.
    folder = write(tmp_path, cases.TRAINED, cases.weights(cases.TRAINED, 50, scale=0.15))
    model, variables = load_pretrained(folder)
    optimizer = optax.chain(
        optax.scale_by_adam(**cases.ADAM),
        optax.scale_by_learning_rate(lambda n: jnp.asarray(cases.LEARNING_RATES)[n]),
    )

    def loss_of(params, batch):
        logits = model.apply({"params": params}, *(batch[k] for k in ("source", "target", "mask")))
        total, weight = label_smoothed_loss(
            logits, batch["labels"], batch["counts"], cases.SMOOTHING, cases.TRAINED["vocab_size"]
        )
        return total / weight

    @jax.jit
    def step(params, state, batch):
        loss, grads = jax.value_and_grad(loss_of)(params, batch)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params, losses = variables["params"], []
    state = optimizer.init(params)
    for n in range(cases.TRAINING_STEPS):
        params, state, loss = step(params, state, cases.training_batch(n))
        losses.append(float(loss))
    expected = json.loads(cases.TRAINING.read_text())["losses"]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
