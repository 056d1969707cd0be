"""How pictures are brought to weights in a single file; such weights used and converted."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import resnet_cases
import safetensors.numpy
import single_files
from PIL import Image

import jaxformers as jf
from jaxformers.data.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.errors import WeightsError
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.pretrained.vit.vit_google import name_map
from jaxformers.pretrained.vit.vit_timm import name_map as timm_map

VIT = dict(patch_size=4, image_size=12, width=64, heads=1, feed_forward=8, layers=1, classes=3)
IMAGENET = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": 3,
    "model_args": {
        "img_size": 12,
        "patch_size": 4,
        "embed_dim": 64,
        "depth": 1,
        "num_heads": 1,
        "mlp_ratio": 0.125,
    },
    "pretrained_cfg": {
        "input_size": [3, 12, 12],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
    },
}


def leaves(model, image):
    """Random variables by path."""
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *image), np.float32))
    random = np.random.default_rng(0)
    flat = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {
        "/".join(key.key for key in path): random.standard_normal(leaf.shape).astype(np.float32)
        for path, leaf in flat
    }


def google(file, config, prefix="", **more):
    """Writes a ViT by Google's names."""
    side = config.image_size
    arrays = name_map(config).write(leaves(jf.ViT(config), (side, side, 3)))
    np.savez(file, **{prefix + name: value for name, value in arrays.items()}, **more)
    return file


def timm(file, **changes):
    """Writes a ViT by timm's names."""
    config = jf.ViTConfig(**(VIT | dict(activation="gelu") | changes))
    tensors = timm_map(False).write(leaves(jf.ViT(config), (12, 12, 3)))
    safetensors.numpy.save_file(tensors, file)
    return file


def torchvision(file):
    """Writes a ResNet by torchvision's names."""
    tensors = resnet_cases.weights(resnet_cases.CASES["basic"][0], 0)
    tensors = single_files.torchvision(tensors)
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, file)
    return file


@pytest.mark.parametrize("depths", [(), (1,), (1, 1), (1, 1, 1, 1)])
def test_googles_hybrids_take_squares_by_their_stride(depths, tmp_path):
    stem = HybridStemConfig(depths, 32)
    small = dict(heads=4, width=16, feed_forward=8, layers=1, classes=2)
    config = jf.ViTConfig(image_size=3 * stem.stride, patch_size=1, stem=stem, **small)
    assert jf.load_images(google(tmp_path / "a.npz", config)) == Preprocessing(3 * stem.stride)


def test_googles_towers_of_pictures_and_texts_take_the_pictures_side(tmp_path):
    text = {"params/a_text/pos_embedding": np.zeros((1, 16, 4))}
    file = google(tmp_path / "a.npz", jf.ViTConfig(**VIT), "params/img/", **text)
    read = jf.load_images(file)
    assert read == Preprocessing(12)
    pixels = np.array([[[0, 128, 255]]], np.uint8)[None]
    np.testing.assert_allclose(read.normalised(pixels), (pixels - 127.5) / 127.5, atol=1e-6)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "no.npz").write_text("no")
    with pytest.raises(WeightsError, match=r"no\.npz is truncated, damaged or no \.npz file"):
        jf.load_images(tmp_path / "no.npz")


def test_a_resnet_of_torchvision_takes_imagenets_middle(tmp_path):
    assert jf.load_images(torchvision(tmp_path / "a.safetensors")) == Preprocessing(
        224, 256, "small", crop="round", **IMAGENET
    )


def test_an_mae_is_known_by_its_form_and_other_vits_need_a_word_beside_them(tmp_path):
    fine_tuned = timm(tmp_path / "a.safetensors", head_norm=True, pooling="average")
    assert jf.load_images(fine_tuned) == Preprocessing(
        12, 14, "small", "bicubic", crop="round", **IMAGENET
    )
    plain = timm(tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match="beside it") as error:
        jf.load_images(plain)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    of_timm = jf.load_images(plain)
    assert of_timm == Preprocessing(
        12, 13, "small", "bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop="round"
    )
    write_preprocessing(Preprocessing(12), tmp_path)
    assert jf.load_images(plain) == Preprocessing(12)


def test_timms_folder_is_a_model_with_its_preprocessing(tmp_path):
    file = timm(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM))
    from_file, from_folder = jf.from_pretrained(file), jf.from_pretrained(tmp_path)
    assert from_file[0] == from_folder[0]
    jax.tree.map(np.testing.assert_array_equal, from_file[1], from_folder[1])
    assert jf.load_images(tmp_path).resize == 13


def test_timms_squashed_pictures_need_not_be_square(tmp_path):
    fields = TIMM["pretrained_cfg"] | {"input_size": [3, 12, 20], "crop_mode": "squash"}
    file = timm(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TIMM | {"pretrained_cfg": fields}))
    read = jf.load_images(file)
    assert (read.size, read.resize, read.rule) == ((12, 20), (13, 22), "direct")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": [3, 12, 14]}, "no square, which crop_mode 'center' needs"),
        ({"crop_mode": "border"}, "crop_mode is 'border'"),
        ({"interpolation": "magic"}, "malformed"),
        ({"crop_pct": "much"}, "malformed"),
        ({"input_size": [3, 12.5, 12.5]}, "malformed"),
        ({"std": [0, 0, 0]}, "it is above 0"),
    ],
)
def test_what_timm_says_amiss_is_named(change, message, tmp_path):
    file = timm(tmp_path / "model.safetensors")
    config = TIMM | {"pretrained_cfg": TIMM["pretrained_cfg"] | change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message) as error:
        jf.load_images(file)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npz", "torchvision"])
def test_a_single_file_classifies_pictures_and_converts_with_its_preprocessing(kind, tmp_path):
    google_file = tmp_path / "weights.npz"
    file = (
        google(google_file, jf.ViTConfig(**VIT))
        if kind == "npz"
        else torchvision(tmp_path / "weights.safetensors")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = jf.classify_images(file, tmp_path / "a.png", top=2)
    command = [sys.executable, "-m", "jaxformers", "convert", str(file), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    actual = jf.classify_images(tmp_path / "made", tmp_path / "a.png", top=2)
    assert [name for name, _ in actual[0]] == [name for name, _ in expected[0]]
    np.testing.assert_allclose([p for _, p in actual[0]], [p for _, p in expected[0]], atol=1e-6)
