"""CLIP and SigLIP against Hugging Face and open_clip: outputs and round trips, towers alone too."""

import json

import clip_cases as cases
import jax
import numpy as np
import pytest
import safetensors.numpy
from folders import read, write

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import CLIP, CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.clip.clip_config import read_clip, read_siglip
from jaxformers.pretrained.clip.open_clip import read_config
from jaxformers.pretrained.mapping.config_fields import Fields
from jaxformers.pretrained.preprocessing.preprocessor_config import read_preprocessing

NAMES = [*cases.CASES, *cases.OPENAI]
# Three numbers that mark OpenAI's archives, and so the quick GELU.
ARCHIVE = {
    "input_resolution": np.array(0),
    "context_length": np.array(0),
    "vocab_size": np.array(0),
}


def published(name, folder):
    """A case's weights as they are published: a folder, or for OpenAI's names a file."""
    tensors = cases.weights(cases.shapes(name), NAMES.index(name))
    if name in cases.OPENAI:
        path = folder / "clip.safetensors"
        safetensors.numpy.save_file(tensors | ARCHIVE, path)
        return path, tensors
    return write(folder / "theirs", cases.CASES[name], tensors), tensors


def outputs(name, model, variables):
    inputs = cases.inputs(name).values()
    result = jax.jit(model.apply)(variables, *inputs)
    if isinstance(model, CLIP):
        return result.logits_per_image, result.image_embeds, result.text_embeds
    return jax.tree.leaves(result)


def check_outputs(name, folder, execution):
    golden = np.load(cases.LOGITS)
    model, variables = load_pretrained(published(name, folder)[0], execution)
    for i, output in enumerate(outputs(name, model, variables)):
        np.testing.assert_allclose(output, golden[f"{name}_{i}"], rtol=1e-5, atol=5e-5)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize(
    "name",
    ["clip", "siglip", "openai_resnet", "clip_legacy", "clip_gelu"]
    + [
        name
        for name in NAMES
        if name not in ("clip", "siglip", "openai_resnet", "clip_legacy", "clip_gelu")
    ],
)
def test_outputs_equal_the_publishers(name, tmp_path):
    check_outputs(name, tmp_path, Execution())


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["openai_resnet", "clip", "siglip"])
def test_outputs_equal_the_publishers_on_the_path_of_tpus(name, tmp_path):
    check_outputs(name, tmp_path, Execution(target="tpu"))


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", cases.CASES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors = published(name, tmp_path)
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    config, saved = read(tmp_path / "ours")
    assert saved.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(saved[key], tensor)
    expected = dict(cases.CASES[name])
    if name in ("clip_text", "clip_vision"):
        del expected["projection_dim"]  # of a projection that they do not have
    assert_includes(config, expected)
    assert load_pretrained(tmp_path / "ours")[0] == model


def assert_includes(config, expected):
    """Every field of a published configuration that changes the function is written again."""
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_includes(config[key], value)
        elif key not in ("bos_token_id", "pad_token_id"):
            assert config[key] == value, key


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["openai_resnet", "siglip", "clip_text"])
def test_our_own_format_keeps_every_field(name, tmp_path):
    model, variables = load_pretrained(published(name, tmp_path)[0])
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    saved_model, saved = load_pretrained(tmp_path / "ours")
    assert saved_model == model
    jax.tree.map(np.testing.assert_array_equal, saved, variables)


def test_old_files_hold_positions_that_are_no_weights(tmp_path):
    folder, tensors = published("clip", tmp_path)
    buffers = {
        f"{tower}.embeddings.position_ids": np.arange(3)[None]
        for tower in ("text_model", "vision_model")
    }
    write(folder, cases.CASES["clip"], tensors | buffers)
    assert isinstance(load_pretrained(folder)[0], CLIP)


def test_fields_that_a_configuration_leaves_out_have_the_publishers_defaults(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    safetensors.numpy.save_file({"x": np.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"missing text_model\.embeddings\.token_embedding"):
        load_pretrained(tmp_path)


def test_an_old_dictionary_of_fields_replaces_a_towers_whole_configuration():
    def text(config, old):
        return read_clip(Fields({"text_config": config, "text_config_dict": old}, "config")).text

    # Absent fields have their default, whatever `text_config` says.
    tower = text({"hidden_act": "gelu", "eos_token_id": 2}, {"hidden_size": 768})
    assert (tower.width, tower.activation, tower.pooling) == (768, "quick_gelu", "eos")
    assert text({"hidden_size": 768}, {}) == text({}, None) == CLIPTextConfig(pooling="eos")
    full = {"hidden_act": "gelu", "eos_token_id": 2, "hidden_size": 768}
    assert text(full, full) == text(full, None) == text(None, full)
    # SigLIP has no such dictionaries: transformers does not read them.
    config = cases.CASES["siglip"]
    fields = [Fields(config | extra, "x") for extra in ({}, {"text_config_dict": {}})]
    assert read_siglip(fields[0]) == read_siglip(fields[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": [1]}, "text_config is"),
        ({"vision_config_dict": [1]}, "vision_config_dict is"),
        ({"vision_config": cases.VISION | {"attention_dropout": 0.1}}, "attention_dropout is 0.1"),
        ({"text_config": cases.TEXT | {"eos_token_id": 99}}, "eos_token_id is 99"),
        ({"text_config": cases.TEXT | {"hidden_act": "mish"}}, "hidden_act is 'mish'"),
        ({"projection_dim": 0}, "projection_dim is 0"),
    ],
)
def test_what_a_configuration_says_and_is_not_supported_is_named(changes, message, tmp_path):
    tensors = cases.weights(cases.shapes("clip"), 0)
    write(tmp_path, cases.CASES["clip"] | changes, tensors)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(tmp_path)


def test_a_plain_file_that_does_not_tell_its_gelu_is_refused(tmp_path):
    path = tmp_path / "clip.safetensors"
    safetensors.numpy.save_file(cases.weights(cases.shapes("openai_vit"), 0), path)
    with pytest.raises(WeightsError, match=r"open_clip_config\.json with quick_gelu"):
        load_pretrained(path)


def open_clip_folder(name, folder, **changes):
    tensors = cases.weights(cases.shapes(name), NAMES.index(name))
    folder.mkdir()
    safetensors.numpy.save_file(tensors, folder / "open_clip_model.safetensors")
    content = {"model_cfg": cases.OPENAI[name] | changes, "preprocess_cfg": {"mean": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return tensors


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", cases.OPENAI)
def test_open_clips_folders_both_ways(name, tmp_path):
    tensors = open_clip_folder(name, tmp_path / "theirs")
    model, variables = load_pretrained(tmp_path / "theirs")
    golden = np.load(cases.LOGITS)
    for i, output in enumerate(outputs(name, model, variables)):
        np.testing.assert_allclose(output, golden[f"{name}_{i}"], rtol=1e-5, atol=5e-5)
    save_pretrained(model, variables, tmp_path / "ours", "open_clip")
    saved = safetensors.numpy.load_file(tmp_path / "ours" / "model.safetensors")
    assert {key for key in saved if not key.endswith("num_batches_tracked")} == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(saved[key], tensor)
    assert load_pretrained(tmp_path / "ours")[0] == model
    preprocessing = read_preprocessing(tmp_path / "theirs")
    assert (preprocessing.crop, preprocessing.alpha, preprocessing.mean) == (
        "round",
        "late",
        (0.5,) * 3,
    )
    assert preprocessing.size == model.config.image_size


def test_open_clips_gelu_is_what_the_folder_says(tmp_path):
    open_clip_folder("openai_vit", tmp_path / "exact", quick_gelu=False)
    assert load_pretrained(tmp_path / "exact")[0].config.text.activation == "gelu"


def test_an_image_size_may_be_a_pair_of_equal_sides():
    for reader, name in ((read_clip, "vision_config"), (read_config, "vision_cfg")):
        assert reader(Fields({name: {"image_size": [96, 96]}}, "config")).image_size == 96
        with pytest.raises(WeightsError, match="not the side of a square image"):
            reader(Fields({name: {"image_size": [96, 64]}}, "config"))


def test_open_clips_widths_of_heads_and_of_feed_forward_layers():
    def image(**vision):
        return read_config(Fields({"embed_dim": 1024, "vision_cfg": vision}, "model_cfg")).image

    tower = image(width=1280, head_width=80, layers=32, patch_size=14)  # ViT-H-14
    assert (tower.heads, tower.feed_forward) == (16, 5120)
    tower = image(width=1664, head_width=104, mlp_ratio=4.9231, layers=48, patch_size=14)  # bigG
    assert (tower.heads, tower.feed_forward) == (16, 8192)
    assert image(width=64, head_width=128, layers=[1, 1, 1, 1]).heads == 16
    fields = Fields({"text_cfg": {"width": 512, "mlp_ratio": 2.5}}, "model_cfg")
    assert read_config(fields).text.feed_forward == 1280


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("feed_forward", [44, 61])  # 28 * (61 / 28) is below 61
def test_models_of_odd_shapes_pass_through_open_clips_folders(feed_forward, tmp_path):
    config = CLIPConfig(
        CLIPImageConfig(12, 4, 3, 28, 2, feed_forward, 1, projection=20),
        CLIPTextConfig(99, 13, 28, 7, feed_forward, 1, eos_id=98, projection=20),
    )
    model = CLIP(config)
    inputs = np.zeros((1, 12, 12, 3), np.float32), np.zeros((1, 13), np.int32)
    variables = model.init(jax.random.key(0), *inputs)
    save_pretrained(model, variables, tmp_path / "ours", "open_clip")
    loaded, read_variables = load_pretrained(tmp_path / "ours")
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, read_variables, variables)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_base"}}, "timm_model_name is 'vit_base'"),
        ({"vision_cfg": {"qk_norm": True}}, "only False is supported"),
        ({"vision_cfg": {"mlp_ratio": "4"}}, "mlp_ratio is '4', not a finite number"),
        ({"text_cfg": {"mlp_ratio": float("nan")}}, "mlp_ratio is nan"),
        ({"vision_cfg": {"head_width": 0}}, "head_width is 0"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "hf_model_name is 'roberta'"),
        ({"text_cfg": {"pool_type": "last"}}, "pool_type is 'last'"),
        ({"multimodal_cfg": {}}, "multimodal_cfg is {}, which is not known"),
        ({"text_cfg": 3}, "not an object of fields"),
    ],
)
def test_open_clips_other_towers_are_refused_by_name(changes, message, tmp_path):
    open_clip_folder("openai_vit", tmp_path / "theirs", **changes)
    with pytest.raises(WeightsError, match=message):
        load_pretrained(tmp_path / "theirs")
