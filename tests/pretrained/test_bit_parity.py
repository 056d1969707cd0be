"""BiT against Hugging Face and the published rules: outputs, round trips, Google's files."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import resnet_cases as cases
import single_files

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained

NAMES = [name for name, (config, _) in cases.CASES.items() if config["model_type"] == "bit"]


def write(folder, config, tensors):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def case(name, folder):
    (config, size), seed = cases.CASES[name], list(cases.CASES).index(name)
    tensors = cases.weights(config, seed)
    return write(folder, config, tensors), tensors, cases.images(config, size, seed)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    folder, _, images = case(name, tmp_path)
    golden = np.load(cases.LOGITS)
    model, variables = load_pretrained(folder)
    found, seen = model.apply(variables, images, mutable=["blocks"])
    kind = "logits" if model.config.classes else "pooled"
    np.testing.assert_allclose(found, golden[f"{name}_{kind}"], rtol=0, atol=1e-4)
    if kind == "pooled":
        features = model.apply(variables, images, method="features")
        np.testing.assert_allclose(features, golden[f"{name}_features"], rtol=0, atol=1e-4)
        for stage, depth in enumerate(model.config.depths):
            block = seen["blocks"][f"stages_{stage}"][f"blocks_{depth - 1}"]["output"]
            np.testing.assert_allclose(block, golden[f"{name}_stage_{stage}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    saved = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    assert saved.keys() == tensors.keys()
    assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
    config, wanted = json.loads((tmp_path / "ours" / "config.json").read_text()), cases.CASES[name]
    assert {key: config.get(key) for key in wanted[0]} == wanted[0]
    assert load_pretrained(tmp_path / "ours")[0] == model
    larger = model.clone(config=replace(model.config, image_size=96))
    save_pretrained(larger, variables, tmp_path / "ours")
    assert load_pretrained(tmp_path / "ours")[0] == larger


def test_googles_files_are_read(tmp_path):
    folder, tensors, _ = case("bit_wide", tmp_path)
    file = tmp_path / "BiT-M-R5x1.npz"
    np.savez(file, **single_files.google_bit(tensors))
    model, variables = load_pretrained(file)
    theirs, same = load_pretrained(folder)
    wanted = replace(theirs.config, class_names=(), standardisation_epsilon=1e-10)
    assert model.config == wanted
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, same))


@pytest.mark.parametrize("part", ["kernel of another rank", "two names for one", "cut", "pickle"])
def test_a_bad_google_file_is_refused_in_one_line(part, tmp_path):
    _, tensors, _ = case("bit_wide", tmp_path)
    tensors, file = single_files.google_bit(tensors), tmp_path / "bad.npz"
    root = "resnet/root_block/standardized_conv2d/kernel"
    if part == "kernel of another rank":
        tensors[root] = tensors[root][0]
    elif part == "two names for one":
        tensors[root.replace("2d/", "2d_7/")] = tensors[root]
    elif part == "pickle":
        tensors[root] = np.array([{}])
    np.savez(file, **tensors)
    if part == "cut":
        file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(WeightsError) as error:
        load_pretrained(file)
    assert "bad.npz" in str(error.value) and "\n" not in str(error.value)


def test_google_and_hugging_face_differ_by_the_epsilon_alone(tmp_path):
    folder, _, images = case("bit", tmp_path)
    model, variables = load_pretrained(folder)
    google = model.clone(config=replace(model.config, standardisation_epsilon=1e-10))
    found, wanted = google.apply(variables, images), model.apply(variables, images)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    with pytest.raises(WeightsError, match="standardisation_epsilon is 1e-10, and 1e-08 there"):
        save_pretrained(google, variables, tmp_path / "ours", format="bit")
    save_pretrained(google, variables, tmp_path / "ours")
    assert load_pretrained(tmp_path / "ours")[0] == google


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_type": "bottleneck"}, "layer_type is 'bottleneck'"),
        ({"global_padding": "same"}, "global_padding is 'same'"),
        ({"embedding_dynamic_padding": True}, "embedding_dynamic_padding"),
        ({"drop_path_rate": 0.1}, "drop_path_rate is 0.1"),
        ({"width_factor": 2}, "width_factor is 2"),
        ({"num_groups": 7}, "does not divide by 4 x 7 groups"),
        ({"hidden_sizes": [32, 64, 40]}, "multiples of 32"),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, dict) else "",
)
def test_what_is_not_supported_is_refused_in_one_line(changes, words, tmp_path):
    folder, tensors, _ = case("bit", tmp_path)
    write(folder, cases.CASES["bit"][0] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_our_config_has_the_published_padding_and_epsilons():
    config = jf.BiTConfig.r50x1()
    assert (config.norm_epsilon, config.standardisation_epsilon, config.groups) == (1e-5, 1e-10, 32)
