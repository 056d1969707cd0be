"""ViT and MAE against Hugging Face: outputs, round trips, both generations of names."""

import re

import jax
import numpy as np
import pytest
import vit_cases as cases
from folders import read, write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, save_pretrained

NAMES = list(cases.CASES)


def case(name, folder):
    config, seed = cases.CASES[name], NAMES.index(name)
    tensors = cases.weights(config, seed, sines=name in cases.SINES)
    return write(folder, config, tensors), tensors


def outputs(name, model, variables):
    """What Hugging Face's class gives, from ours."""
    config, seed = cases.CASES[name], NAMES.index(name)
    images = cases.images(config, seed)
    if name in cases.MAES:
        return list(jax.jit(model.apply)(variables, images, cases.noise(config, seed)))
    if name == "classifier" or name == "classifier_tanh":
        return [model.apply(variables, images)]
    tokens = model.apply(variables, images, method="features")
    return [tokens, model.apply(variables, images)] if name == "encoder" else [tokens]


def check_outputs(name, folder, execution):
    golden = np.load(cases.LOGITS)
    ours = outputs(name, *load_pretrained(case(name, folder)[0], execution))
    assert len(ours) == len(cases.OUTPUTS[cases.CASES[name]["architectures"][0]])
    for i, output in enumerate(ours):
        np.testing.assert_allclose(output, golden[f"{name}_{i}"], rtol=1e-5, atol=5e-5)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    check_outputs(name, tmp_path, Execution())


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", ["classifier", "mae", *sorted({*NAMES} - {"classifier", "mae"})])
def test_outputs_equal_hugging_faces_on_the_path_of_tpus(name, tmp_path):
    check_outputs(name, tmp_path, Execution(target="tpu"))


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    config, saved = read(tmp_path / "ours")
    assert saved.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_allclose(saved[key], tensor, rtol=0, atol=1e-6 * ("pos" in key))
    expected = {key: cases.CASES[name][key] for key in cases.CASES[name]}
    if name == "mae_encoder":
        del expected["mask_ratio"]  # an encoder alone hides nothing
    assert {key: config[key] for key in expected} == expected
    assert load_pretrained(tmp_path / "ours")[0] == model


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["classifier", "encoder", "mae", "mae_tables"])
def test_our_own_format_keeps_every_field(name, tmp_path):
    folder, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize("name", ["classifier", "mae"])
def test_the_names_of_transformers_5_are_read(name, tmp_path):
    folder, tensors = case(name, tmp_path / "old")
    for pattern, new in (
        (r"encoder\.layer\.", "layers."),
        (r"attention\.attention\.(.)\w+", r"attention.\1_proj"),
        (r"attention\.output\.dense", "attention.o_proj"),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
    ):
        tensors = {re.sub(pattern, new, key): value for key, value in tensors.items()}
    assert any(key.endswith("layers.0.attention.q_proj.weight") for key in tensors)
    write(tmp_path / "new", cases.CASES[name], tensors)
    expected, loaded = load_pretrained(folder), load_pretrained(tmp_path / "new")
    assert expected[0] == loaded[0]
    jax.tree.map(np.testing.assert_array_equal, expected[1], loaded[1])


def test_an_mae_that_transformers_5_saved_is_read(tmp_path):
    """It writes "decoder_encoder.layer." where the published files have "decoder_layers."."""
    folder, tensors = case("mae", tmp_path / "old")
    mangled = {
        key.replace("decoder_layers.", "decoder_encoder.layer."): tensors[key] for key in tensors
    }
    assert mangled.keys() != tensors.keys()
    write(tmp_path / "new", cases.CASES["mae"], mangled)
    expected, loaded = load_pretrained(folder), load_pretrained(tmp_path / "new")
    assert expected[0] == loaded[0]
    jax.tree.map(np.testing.assert_array_equal, expected[1], loaded[1])


def test_fixed_tables_are_known_from_learned_ones(tmp_path):
    kinds = {}
    for name in ("mae", "mae_tables"):
        model, variables = load_pretrained(case(name, tmp_path / name)[0])
        kinds[name] = model.config.encoder.positions
        assert ("decoder_position_embedding" in variables["params"]) == (name == "mae_tables")
    assert kinds == {"mae": "sincos2d_mae", "mae_tables": "learned"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qkv_bias": "no"}, "qkv_bias is 'no', neither true nor false"),
        ({"qkv_bias": False}, "unexpected .*attention.query.bias"),
        ({"image_size": [20, 24]}, "position_embeddings .1, 26, 24. instead of .1, 31, 24."),
        ({"image_size": [20, 24, 3]}, "image_size is .20, 24, 3., not a side"),
        ({"patch_size": [4, 5]}, "patch_size is .4, 5., and only squares"),
        ({"position_resize": "cubic"}, "position_resize is 'cubic', which is none of zoom"),
        ({"image_size": 1 << 20}, "image_size is 1048576"),
        ({"patch_size": 3}, "20 pixels do not divide into patches of 3"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"num_attention_heads": 5}, "5 heads do not divide"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
        ({"hidden_size": 27}, "cls_token .1, 1, 24. instead of .1, 1, 27."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_in_one_line(changes, words, tmp_path):
    folder, tensors = case("classifier", tmp_path)
    write(folder, cases.CASES["classifier"] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_missing_and_an_unknown_tensor_are_named(tmp_path):
    folder, tensors = case("mae", tmp_path)
    del tensors["decoder.decoder_layers.1.output.dense.bias"]
    tensors["vit.extra"] = np.zeros(3, np.float32)
    write(folder, cases.CASES["mae"], tensors)
    with pytest.raises(
        WeightsError,
        match=r"missing decoder.decoder_layers.1.output.dense.bias; unexpected vit.extra",
    ):
        load_pretrained(folder)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pooling": "average"}, "pools by averaging"),
        ({"positions": "none"}, "positions are 'none'"),
        ({"pre_logits": 8}, "a layer before its head"),
    ],
    ids=str,
)
def test_what_hugging_face_has_no_name_for_is_kept_in_our_format(changes, words, tmp_path):
    config = jf.ViTConfig(
        image_size=8, patch_size=4, width=8, heads=2, feed_forward=8, layers=1, classes=3, **changes
    )
    model = jf.ViT(config)
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(WeightsError, match=words):
        save_pretrained(model, variables, tmp_path, format="vit")
    save_pretrained(model, variables, tmp_path)
    assert load_pretrained(tmp_path)[0] == model
