"""Files of training runs: wrappers' prefixes, and which of several sets of weights is meant."""

import dino_cases
import jax
import numpy as np
import pytest
import resnet_cases
import safetensors.numpy
import single_files

import jaxformers as jf
from jaxformers.cli import command
from jaxformers.errors import WeightsError
from jaxformers.pretrained import torch_to_safetensors
from jaxformers.pretrained.formats.weight_sets import state_dicts


def network(seed=0):
    """A ResNet's tensors by torchvision's names."""
    tensors = resnet_cases.weights(resnet_cases.CASES["basic"][0], seed)
    named = single_files.torchvision(tensors)
    return {name: np.ascontiguousarray(value) for name, value in named.items()}


def under(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def saved(folder, *sets):
    path = folder / "checkpoint.safetensors"
    tensors = {name: value for one_set in sets for name, value in one_set.items()}
    safetensors.numpy.save_file(tensors, path)
    return path


def assert_holds(path, tensors, **choice):
    """The file gives the same model and variables as the plain tensors."""
    plain = path.with_name("plain.safetensors")
    safetensors.numpy.save_file(tensors, plain)
    expected, loaded = jf.from_pretrained(plain), jf.from_pretrained(path, **choice)
    assert loaded[0] == expected[0]
    jax.tree.map(np.testing.assert_array_equal, loaded[1], expected[1])


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "teacher.backbone.",
        "state_dict.model.",
        "model_ema.module.",
    ],
)
def test_wrappers_prefixes_are_taken_off(prefix, tmp_path):
    assert_holds(saved(tmp_path, under(prefix, network())), network())


def test_heads_of_self_supervision_and_counters_do_no_harm(tmp_path):
    head = {
        name: np.ones((2, 2), np.float32)
        for name in ("head.mlp.0.weight", "head.last_layer.weight_g", "dino_head.mlp.2.bias")
    }
    sets = under("backbone.", network()), head, {"n_averaged": np.ones((), np.float32)}
    assert_holds(saved(tmp_path, *sets), network())


def test_one_of_several_sets_is_chosen_by_name(tmp_path):
    path = saved(tmp_path, under("model.", network(0)), under("model_ema.module.", network(1)))
    with pytest.raises(WeightsError, match=r"several sets of weights \('model', 'model_ema\.mod"):
        jf.from_pretrained(path)
    assert_holds(path, network(0), weights="model")
    for choice in ("model_ema", "model_ema.module"):
        assert_holds(path, network(1), weights=choice)
    with pytest.raises(WeightsError, match=r"no weights 'ema'; it holds 'model', 'model_ema\.mod"):
        jf.from_pretrained(path, weights="ema")


def test_student_and_teacher_are_two_sets(tmp_path):
    sets = under("student.backbone.", network(0)), under("teacher.backbone.", network(1))
    path = saved(tmp_path, *sets)
    assert_holds(path, network(1), weights="teacher")
    with pytest.raises(WeightsError, match="several sets"):
        jf.from_pretrained(path, weights="backbone")


def test_other_tensors_beside_the_weights_are_named(tmp_path):
    criterion = {"criterion.weight": np.ones(3, np.float32)}
    path = saved(tmp_path, under("model.", network()), criterion)
    with pytest.raises(WeightsError, match=r"criterion.weight beside the weights 'model': choose"):
        jf.from_pretrained(path)
    assert_holds(path, network(), weights="model")


def test_a_folder_has_no_sets_to_choose_from(tmp_path):
    with pytest.raises(WeightsError, match="is a folder, which holds one set of weights"):
        jf.from_pretrained(tmp_path, weights="ema")


def test_convert_takes_the_set_that_is_asked_for(tmp_path, capsys):
    path = saved(tmp_path, under("model.", network(0)), under("model_ema.", network(1)))
    words = ["convert", str(path), str(tmp_path / "out")]
    assert command.main(words) == 2
    assert "several sets of weights" in capsys.readouterr().err
    assert command.main([*words, "--weights", "model_ema"]) == 0
    assert "without preprocessing" not in capsys.readouterr().out
    chosen, converted = jf.from_pretrained(path, weights="model_ema"), tmp_path / "out"
    jax.tree.map(np.testing.assert_array_equal, chosen[1], jf.from_pretrained(converted)[1])


@pytest.mark.parametrize(
    ("file", "choice", "names", "value"),
    [
        ("checkpoint_timm", "state_dict", {"module.layer.weight"}, 1),
        ("checkpoint_timm", "state_dict_ema", {"module.layer.weight"}, 2),
        ("checkpoint_dino", "teacher", {"backbone.layer.weight", "head.mlp.0.bias"}, 2),
        ("checkpoint_dino", "teacher.backbone", {"layer.weight"}, 2),
        ("checkpoint_dino", "student.module.backbone", {"layer.weight"}, 1),
        ("checkpoint_lightning", None, {"model.layer.weight", "model_ema.module.layer.weight"}, 1),
        ("checkpoint_lightning", "model_ema", {"layer.weight"}, 2),
        ("checkpoint_lightning", "state_dict.model", {"layer.weight"}, 1),
    ],
)
def test_a_set_of_a_training_runs_checkpoint_is_chosen(file, choice, names, value, tmp_path):
    source, target = dino_cases.FIXTURES / f"{file}.pth", tmp_path / "weights.safetensors"
    torch_to_safetensors(source, target, weights=choice)
    tensors = safetensors.numpy.load_file(target)
    assert tensors.keys() == names
    weight = next(array for name, array in tensors.items() if name.endswith("layer.weight"))
    assert (weight == value).all()


@pytest.mark.parametrize(
    ("file", "choice", "words"),
    [
        ("checkpoint_timm", None, r"several sets of weights \('state_dict', 'state_dict_ema'\)"),
        ("checkpoint_dino", None, r"several sets of weights \('student', 'teacher'\)"),
        ("checkpoint_dino", "backbone", "several sets of weights"),
        ("checkpoint_timm", "ema", "no weights 'ema'; it holds"),
    ],
)
def test_a_checkpoint_of_several_sets_asks_for_a_choice(file, choice, words, tmp_path):
    source = dino_cases.FIXTURES / f"{file}.pth"
    with pytest.raises(WeightsError, match=words) as error:
        torch_to_safetensors(source, tmp_path / "weights.safetensors", weights=choice)
    assert "\n" not in str(error.value)


def test_state_dicts_are_found_inside_a_checkpoint():
    weights = {"a": 1}
    assert state_dicts(weights) == {"": weights}
    assert state_dicts({"model": weights, "epoch": 3}) == {"model": weights}
    assert state_dicts({"state_dict": {"model": weights}}) == {"state_dict.model": weights}
    checkpoint = {"model": weights, "model_ema": {"b": 2}, "optimizer": {"state": {}}}
    assert state_dicts(checkpoint) == {"model": weights, "model_ema": {"b": 2}}
    endless = {}
    endless["model"] = endless
    assert len(state_dicts(endless)) == 1
