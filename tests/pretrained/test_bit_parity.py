"""BiT as Google publishes it, and what its Hugging Face form cannot be."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import resnet_cases as cases
import single_files
from folders import write
from resnet_cases import case

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained


def test_googles_files_are_read(tmp_path):
    folder, tensors, _ = case("bit_wide", tmp_path)
    file = tmp_path / "BiT-M-R5x1.npz"
    np.savez(file, **single_files.google_bit(tensors))
    model, variables = load_pretrained(file)
    theirs, same = load_pretrained(folder)
    expected = replace(theirs.config, class_names=(), standardisation_epsilon=1e-10)
    assert model.config == expected
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, same))


@pytest.mark.parametrize("fault", ["kernel of another rank", "two names for one", "cut", "pickle"])
def test_a_bad_google_file_is_refused_in_one_line(fault, tmp_path):
    _, tensors, _ = case("bit_wide", tmp_path)
    tensors, file = single_files.google_bit(tensors), tmp_path / "bad.npz"
    root = "resnet/root_block/standardized_conv2d/kernel"
    if fault == "kernel of another rank":
        tensors[root] = tensors[root][0]
    elif fault == "two names for one":
        tensors[root.replace("2d/", "2d_7/")] = tensors[root]
    elif fault == "pickle":
        tensors[root] = np.array([{}])
    np.savez(file, **tensors)
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(WeightsError) as error:
        load_pretrained(file)
    assert "bad.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_google_and_hugging_face_differ_by_the_epsilon_alone(tmp_path):
    folder, _, images = case("bit", tmp_path)
    model, variables = load_pretrained(folder)
    google = model.clone(config=replace(model.config, standardisation_epsilon=1e-10))
    actual, expected = google.apply(variables, images), model.apply(variables, images)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
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
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
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
