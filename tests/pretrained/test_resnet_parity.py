"""ResNet and BiT against Hugging Face: outputs, round trips; ResNet's training and statistics."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import resnet_cases as cases
import safetensors.numpy
import single_files
from folders import read, write
from resnet_cases import case

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.sharding import MeshConfig, make_mesh, put_batch

RESNETS = [name for name, (config, _) in cases.CASES.items() if config["model_type"] == "resnet"]


def check_outputs(name, folder, execution):
    folder, _, images = case(name, folder)
    golden = np.load(cases.LOGITS)
    model, variables = load_pretrained(folder, execution)
    output, captured = model.apply(variables, images, mutable=["blocks"])
    kind = "logits" if model.config.classes else "pooled"
    np.testing.assert_allclose(output, golden[f"{name}_{kind}"], rtol=0, atol=1e-4)
    if kind == "pooled":
        features = model.apply(variables, images, method="features")
        np.testing.assert_allclose(features, golden[f"{name}_features"], rtol=0, atol=1e-4)
        for stage, depth in enumerate(model.config.depths):
            block = captured["blocks"][f"stages_{stage}"][f"blocks_{depth - 1}"]["output"]
            np.testing.assert_allclose(block, golden[f"{name}_stage_{stage}"], rtol=0, atol=1e-4)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", cases.CASES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    check_outputs(name, tmp_path, Execution())


# A ResNet and a BiT first.
TPU_CASES = sorted(cases.CASES, key=lambda name: (name != RESNETS[0], name in RESNETS, name))


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", TPU_CASES)
def test_outputs_equal_hugging_faces_on_the_path_of_tpus(name, tmp_path):
    check_outputs(name, tmp_path, Execution(target="tpu"))


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", cases.CASES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    config, saved = read(tmp_path / "ours")
    assert saved.keys() == tensors.keys()
    assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
    expected, _ = cases.CASES[name]
    assert {key: config.get(key) for key in expected} == expected
    assert load_pretrained(tmp_path / "ours")[0] == model
    larger = model.clone(config=replace(model.config, image_size=96))
    save_pretrained(larger, variables, tmp_path / "ours")
    assert load_pretrained(tmp_path / "ours")[0] == larger


# Names do not tell where a stride stands: torchvision's ResNets are all version 1.5.
@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", [n for n in RESNETS if not n.endswith(("_first", "_halved"))])
def test_torchvisions_names_are_read(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path)
    file = tmp_path / "resnet.safetensors"
    safetensors.numpy.save_file(single_files.torchvision(tensors), file)
    model, variables = load_pretrained(file)
    theirs, same = load_pretrained(folder)
    assert model.config == replace(theirs.config, class_names=())
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, same))


def test_our_own_format_keeps_running_statistics(tmp_path):
    folder, _, _ = case("bottleneck", tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, variables))


def stepped(model, transformation):
    def step(variables, state, images, labels):
        def loss(params):
            logits, new = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new

        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transformation.update(grads, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **new}, state, value

    return jax.jit(step)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_training_equals_pytorchs_with_running_statistics(shape, tmp_path):
    golden = json.loads(cases.TRAINING.read_text())
    config = cases.TRAINED
    model, variables = load_pretrained(write(tmp_path, config, cases.weights(config, 0)))
    transformation = optax.sgd(cases.RATE, cases.MOMENTUM)
    state, step = transformation.init(variables["params"]), stepped(model, transformation)
    size = shape[0] * shape[1] * shape[2]
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[:size])
    losses = []
    with jax.set_mesh(mesh):
        for i in range(cases.STEPS):
            images, labels = cases.training_batch(i)
            batch = put_batch({"images": images, "labels": labels}, mesh)
            variables, state, loss = step(variables, state, batch["images"], batch["labels"])
            losses.append(float(loss))
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-5)
    save_pretrained(model, jax.tree.map(jnp.asarray, variables), tmp_path / "after")
    _, saved = read(tmp_path / "after")
    for name, expected in golden["tensors"].items():
        np.testing.assert_allclose(saved[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "mish"}, "hidden_act is 'mish', which is none of relu"),
        ({"downsample_in_bottleneck": 1}, "downsample_in_bottleneck is 1, neither true nor false"),
        ({"downsample_in_first_stage": 1}, "downsample_in_first_stage is 1, neither true nor"),
        ({"layer_type": "plain"}, "layer_type is 'plain'"),
        ({"depths": [2, 0, 2]}, "depths is"),
        ({"depths": [2, 1]}, "do not fit 2 stages"),
        ({"embedding_size": 16}, r"embedder.convolution.weight .12, 3, 7, 7. instead of .16, 3"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_in_one_line(changes, words, tmp_path):
    folder, tensors, _ = case("basic", tmp_path)
    write(folder, cases.CASES["basic"][0] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_small_stem_is_kept_in_our_own_format_only(tmp_path):
    model = jf.ResNet(jf.ResNetConfig(stem="small", width=8, depths=(1,), image_size=16))
    variables = model.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    with pytest.raises(WeightsError, match="the stem 'small' has no name there"):
        save_pretrained(model, variables, tmp_path / "a", format="resnet")
    save_pretrained(model, variables, tmp_path / "b")
    assert load_pretrained(tmp_path / "b")[0] == model
