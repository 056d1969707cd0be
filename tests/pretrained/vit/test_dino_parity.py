"""DeiT, DINOv2 and non-square ViTs against Hugging Face: outputs, round trips, uses."""

import re
from dataclasses import replace

import dino_cases as cases
import jax
import numpy as np
import pytest
import safetensors.numpy
from folders import read, write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, resize_positions, save_pretrained

NAMES = list(cases.CASES)


def case(name, folder):
    config, seed = cases.CASES[name], NAMES.index(name)
    tensors = cases.weights(config, seed)
    return write(folder, config, tensors), tensors


def outputs(name, model, variables):
    """What Hugging Face's class gives, from ours, by field and number of the size."""
    results = {}
    for number, shape in enumerate(cases.image_shapes(name)):
        images = cases.images(shape, NAMES.index(name))
        pooled = model.apply(variables, images)
        if model.config.classes:
            results[f"{name}_{number}_logits"] = pooled
            continue
        results[f"{name}_{number}_pooler_output"] = pooled
        tokens = model.apply(variables, images, method="features")
        results[f"{name}_{number}_last_hidden_state"] = tokens
    return results


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    folder, _ = case(name, tmp_path)
    golden = np.load(cases.LOGITS)
    for key, output in outputs(name, *load_pretrained(folder)).items():
        np.testing.assert_allclose(output, golden[key], rtol=1e-5, atol=5e-5)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    config, saved = read(tmp_path / "ours")
    mask_tokens = {key for key in saved.keys() ^ tensors.keys() if key.endswith("mask_token")}
    assert saved.keys() ^ tensors.keys() == mask_tokens
    for key in saved.keys() & tensors.keys():
        if not key.endswith("mask_token"):
            np.testing.assert_array_equal(saved[key], tensors[key])
    expected = {key: config[key] for key in cases.CASES[name]}
    assert expected == cases.CASES[name]
    assert load_pretrained(tmp_path / "ours")[0] == model


@pytest.mark.parametrize("name", ["deit_teacher", "dinov2_giant", "registers"])
def test_the_names_of_transformers_5_are_read(name, tmp_path):
    folder, tensors = case(name, tmp_path / "old")
    renamed = {}
    for key, value in tensors.items():
        key = re.sub(r"attention\.attention\.(.)\w+", r"attention.\1_proj", key)
        key = key.replace("attention.output.dense", "attention.o_proj")
        if name == "deit_teacher":
            key = re.sub(r"encoder\.layer\.", "layers.", key)
            key = key.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        key = key.replace("weights_out", "down_proj")
        if "weights_in" in key:
            gate, up = np.split(value, 2)
            renamed[key.replace("weights_in", "gate_proj")] = gate
            renamed[key.replace("weights_in", "up_proj")] = up
        else:
            renamed[key] = value
    assert renamed.keys() != tensors.keys()
    write(tmp_path / "new", cases.CASES[name], renamed)
    old, new = load_pretrained(folder), load_pretrained(tmp_path / "new")
    assert old[0] == new[0]
    jax.tree.map(np.testing.assert_array_equal, old[1], new[1])


@pytest.mark.parametrize("old, new", cases.GRIDS, ids=str)
def test_positions_are_resized_as_dinov2s_authors_do(old, new):
    golden = np.load(cases.LOGITS)[f"offset_{new[0]}_{new[1]}"]
    table = cases.table(old).reshape(-1, 2)
    resized = resize_positions(table, old, new, "bicubic_offset")
    np.testing.assert_allclose(resized.reshape(golden.shape), golden, atol=2e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["dinov2", "dinov2_giant", "registers"])
def test_files_of_dinov2s_authors_give_the_same_model(name, tmp_path):
    """Positions of another size aside, which transformers resizes otherwise without registers."""
    config = cases.CASES[name] | dict(hidden_size=64, num_attention_heads=1, num_hidden_layers=1)
    config.pop("id2label", None)
    tensors = cases.weights(config, 0)
    folder = write(tmp_path / "hf", config, tensors)
    file = tmp_path / "pretrain.safetensors"
    safetensors.numpy.save_file(cases.authors_names(tensors), file)
    (theirs, variables), (model, read_variables) = (
        jf.from_pretrained(folder),
        jf.from_pretrained(file),
    )
    jax.tree.map(np.testing.assert_array_equal, read_variables, variables)
    resize = "bicubic_antialiased" if name == "registers" else "bicubic_offset"
    scale = dict(position_resize=resize, layer_scale=model.config.layer_scale)
    assert model.config == replace(theirs.config, **scale)
    assert jf.load_images(file).resize == 256
    save_pretrained(model, read_variables, tmp_path / "saved")
    assert read(tmp_path / "saved")[0]["model_type"] == config["model_type"]
    assert jf.from_pretrained(tmp_path / "saved")[0] == model


def test_a_teacher_of_dinov2s_training_is_read(tmp_path):
    """Its layers lie in chunks, beside the heads of self-distillation."""
    config = cases.CASES["dinov2"] | dict(hidden_size=64, num_attention_heads=1)
    tensors = cases.authors_names(cases.weights(config, 0))
    chunked = {re.sub(r"^blocks\.(\d)", r"blocks.\1.\1", key): tensors[key] for key in tensors}
    assert "blocks.1.1.norm1.weight" in chunked
    teacher = {f"teacher.backbone.{name}": value for name, value in chunked.items()}
    heads = {"teacher.dino_head.mlp.0.bias": np.zeros(3, np.float32)}
    for name, content in (("plain", tensors), ("teacher", teacher | heads)):
        safetensors.numpy.save_file(content, tmp_path / f"{name}.safetensors")
    plain, loaded = (
        jf.from_pretrained(tmp_path / f"{name}.safetensors") for name in ("plain", "teacher")
    )
    assert loaded[0] == plain[0]
    jax.tree.map(np.testing.assert_array_equal, loaded[1], plain[1])


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", cases.LOADED_SIZES)
def test_positions_of_another_size_are_transformers_own(name, tmp_path):
    """As with `interpolate_pos_encoding=True` there."""
    golden = np.load(cases.LOGITS)
    folder, _ = case(name, tmp_path)
    for height, width in cases.LOADED_SIZES[name]:
        model, variables = load_pretrained(folder, image_size=(height, width))
        logits = model.apply(variables, cases.images((height, width), NAMES.index(name)))
        expected = golden[f"{name}_{height}_{width}"]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("dinov2", {"image_size": [21, 28]}, r"image_size is \[21, 28\], and transformers resizes"),
        ("dinov2", {"layerscale_value": 0}, "layerscale_value is 0"),
        ("dinov2", {"use_swiglu_ffn": "yes"}, "use_swiglu_ffn is 'yes'"),
        ("dinov2", {"mlp_ratio": 2.5}, "mlp_ratio is 2.5"),
        ("dinov2", {"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ("dinov2", {"head_dim": 5}, "head_dim is 5"),
        ("registers", {"num_register_tokens": -1}, "num_register_tokens is -1"),
        ("registers", {"num_register_tokens": 4}, r"register_tokens \[1, 3, 24\] instead of"),
        ("deit", {"architectures": ["DeiTForMaskedImageModeling"]}, "DeiTForMaskedImageModeling"),
        ("deit", {"patch_size": [4, 2]}, r"patch_size is \[4, 2\]"),
        ("deit", {"qkv_bias": False}, "unexpected deit.encoder.layer.0.*query.bias"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_in_one_line(name, changes, words, tmp_path):
    folder, tensors = case(name, tmp_path)
    write(folder, cases.CASES[name] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["deit_teacher", "dinov2_classifier"])
def test_our_own_format_keeps_every_field(name, tmp_path):
    model, variables = load_pretrained(case(name, tmp_path / "theirs")[0])
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    again, kept_variables = load_pretrained(tmp_path / "ours")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, kept_variables, variables)
