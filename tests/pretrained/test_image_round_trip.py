"""Image folders, exported and imported again, behave the same: pixels, logits and class names."""

import json

import dino_cases
import jax
import numpy as np
import pytest
import resnet_cases
import vit_cases
from folders import write
from PIL import Image

import jaxformers as jf
from jaxformers.cli import command

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
# Cases of the golden files, and preprocessing as their publishers' folders have it.
FOLDERS = {
    "vit": (
        vit_cases.CASES["classifier"],
        dict(image_processor_type="ViTImageProcessor", size=dict(height=20, width=20), resample=2),
    ),
    "vit_pair": (
        dino_cases.CASES["vit_pair"],
        dict(image_processor_type="ViTImageProcessor", size=dict(height=20, width=12), resample=3),
    ),
    "deit": (
        dino_cases.CASES["deit_teacher"],
        dict(feature_extractor_type="DeiTFeatureExtractor", size=24, crop_size=20, **IMAGENET),
    ),
    "dinov2": (  # images smaller than its table of positions is for
        dino_cases.CASES["dinov2_classifier"],
        dict(size=dict(shortest_edge=18), crop_size=dict(height=14, width=14), **IMAGENET),
    ),
    "mae": (vit_cases.CASES["mae"], dict(size=20, resample=3, **IMAGENET)),  # no type
    "resnet": (
        resnet_cases.CASES["basic"][0],
        dict(
            feature_extractor_type="ConvNextFeatureExtractor", size=33, crop_pct=0.875, **IMAGENET
        ),
    ),
    "bit": (
        resnet_cases.CASES["bit"][0],
        dict(image_processor_type="BitImageProcessor", size=dict(shortest_edge=36), crop_size=32),
    ),
}


def published(name, folder):
    """A published folder with its preprocessing."""
    config, fields = FOLDERS[name]
    if name in ("resnet", "bit"):
        tensors = resnet_cases.weights(config, 0)
    elif name in ("vit", "mae"):
        tensors = vit_cases.weights(config, 0, sines=name == "mae")
    else:
        tensors = dino_cases.weights(config, 0)
    write(folder, config, tensors)
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return folder


def outputs(folder):
    """Pixels of an image, and what the model gives for them."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    images = jf.load_images(folder)(Image.fromarray(pixels))
    model, variables = jf.from_pretrained(folder)
    method = "features" if isinstance(model, jf.MAE) else None
    return model, images, model.apply(variables, images, method=method)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("format", ["auto", "jaxformers"])
def test_a_saved_folder_behaves_as_the_published_one(name, format, tmp_path):
    folder = published(name, tmp_path / "theirs")
    model, variables = jf.from_pretrained(folder)
    preprocessing = jf.load_images(folder)
    jf.save_pretrained(
        model, variables, tmp_path / "ours", format=format, preprocessing=preprocessing
    )
    assert jf.load_images(tmp_path / "ours") == preprocessing
    first, second = outputs(folder), outputs(tmp_path / "ours")
    assert first[0] == second[0]  # class names among its fields
    jax.tree.map(np.testing.assert_array_equal, first[1:], second[1:])


@pytest.mark.slow
def test_convert_keeps_preprocessing_and_class_names(tmp_path):
    folder = published("vit", tmp_path / "theirs")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    assert command.main(["convert", str(folder), str(tmp_path / "ours")]) == 0
    expected = jf.classify_images(folder, pixels)
    assert jf.classify_images(tmp_path / "ours", pixels) == expected
    assert expected[0][0][0].startswith("class ")
