"""Preprocessed pixels equal the publishers' own on odd sizes and for all kinds of colour."""

import json

import image_cases as cases
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.data.images import Augmentation, WholeImage
from jaxformers.models.clip import CLIPConfig
from jaxformers.pretrained.clip.clip_family import clip_preprocessing
from jaxformers.pretrained.image_config import imagenet_preprocessing
from jaxformers.pretrained.preprocessing.preprocessor_config import (
    read_preprocessing,
    write_preprocessing,
)
from jaxformers.pretrained.preprocessing.single_file import timm_preprocessing

GOLDEN = json.loads(cases.GOLDEN.read_text())


def preprocessing_of(case, folder, **changes):
    """What the library reads for a publisher's case."""
    library, config = case.split()[0], GOLDEN[case]["config"]
    if library == "transformers":
        file = folder / "preprocessor_config.json"
        file.write_text(json.dumps(config | changes))
        return jf.load_images(folder)
    if library == "timm":
        return timm_preprocessing(config, folder / "config.json")
    return imagenet_preprocessing(224) if library == "torchvision" else openai_preprocessing()


def openai_preprocessing():
    return clip_preprocessing(CLIPConfig.vit_b32())


def differing(preprocessing, images, checksums):
    """Names of the images whose pixels are not the publisher's."""
    assert images.keys() == checksums.keys()
    return [
        name
        for name, image in images.items()
        if cases.checksum(preprocessing.pixels(image)[0]) != checksums[name]
    ]


@pytest.mark.parametrize("case", sorted(GOLDEN))
def test_pixels_of_odd_sizes_are_the_publishers(case, tmp_path):
    preprocessing = preprocessing_of(case, tmp_path)
    assert differing(preprocessing, cases.odd_sizes(), GOLDEN[case]["odd"]) == []
    write_preprocessing(preprocessing, tmp_path)
    assert read_preprocessing(tmp_path) == preprocessing


@pytest.mark.parametrize("case", sorted(GOLDEN))
def test_transparency_and_palettes_are_converted_as_the_publisher_does(case, tmp_path):
    kinds = cases.colour_kinds()
    for rule in {"white", "drop", "late"} & GOLDEN[case].keys():
        changes = {"do_convert_rgb": rule == "white"}
        preprocessing = preprocessing_of(case, tmp_path, **changes)
        assert preprocessing.alpha == rule
        assert differing(preprocessing, kinds, GOLDEN[case][rule]) == []


def test_the_two_corners_of_the_middle_differ_in_some_sizes():
    """Else the test above would not tell them apart."""
    round_down = imagenet_preprocessing(224, crop="floor")
    names = differing(round_down, cases.odd_sizes(), GOLDEN["torchvision resnet"]["odd"])
    assert 3 <= len(names) < len(cases.SIZES)


@pytest.mark.parametrize("alpha", ["drop", "white", "late"])
def test_training_converts_as_evaluation_does(alpha):
    """An augmentation that shows the whole image is the preprocessing of a direct resize."""
    form = dict(alpha=alpha, interpolation="bicubic")
    evaluated = jf.data.images.Preprocessing(12, **form)
    trained = Augmentation(12, crop=WholeImage(), flip=0, fast=False, **form)
    for name, image in cases.colour_kinds().items():
        pixels = trained.picture(image, np.full(trained.draws, 0.5))
        assert cases.checksum(pixels) == cases.checksum(evaluated.picture(image)), name
