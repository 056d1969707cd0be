"""Random values in the JSON files of image folders: refused in one line, or read."""

import json

import dino_cases
import numpy as np
import pytest
import resnet_cases
import vit_cases
from folders import write

import jaxformers as jf
from jaxformers.errors import UserError
from jaxformers.pretrained.preprocessing.preprocessor_config import READ_FIELDS
from jaxformers.pretrained.preprocessing.processor_file import DEFAULTS, NESTED_FIELD

VALUES = (
    None, True, False, 0, 1, -1, 7, 224, 10**9, 10**400, 0.5, -0.5, 1e300, float("nan"),
    float("inf"), "", "bicubic", "3", [], [8, 8], [8], [0.5] * 3, [[1]], [None], {}, {"height": 8},
    {"height": 8, "width": 9}, {"height": "8", "width": 8}, {"shortest_edge": 8},
    {"shortest_edge": [8]}, {"longest_edge": 8}, {"0": "a"}, {"x": {"y": []}},
)  # fmt: skip
FOLDERS = {
    "vit": (vit_cases, vit_cases.CASES["classifier"]),
    "mae": (vit_cases, vit_cases.CASES["mae"]),
    "deit": (dino_cases, dino_cases.CASES["deit_teacher"]),
    "dinov2": (dino_cases, dino_cases.CASES["dinov2_giant"]),
    "registers": (dino_cases, dino_cases.CASES["registers"]),
    "resnet": (resnet_cases, resnet_cases.CASES["basic"][0]),
    "bit": (resnet_cases, resnet_cases.CASES["bit"][0]),
}


def one_line_or_value(function, *arguments):
    """The function's result, or None where it refuses its input in one line."""
    try:
        return function(*arguments)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, error
        return None


@pytest.mark.slow
def test_random_image_processors_are_read_or_refused(tmp_path):
    random = np.random.default_rng(0)
    types = [f"{kind}ImageProcessor" for kind in DEFAULTS]
    names = [*sorted(READ_FIELDS), "image_processor_type", "do_pad", "offset"]
    num_read = 0
    for _ in range(3000):
        fields = {"image_processor_type": str(random.choice(types))}
        for name in random.choice(names, random.integers(1, 4)):
            fields[str(name)] = VALUES[random.integers(len(VALUES))]
        nested = bool(random.random() < 0.1)
        (tmp_path / "processor_config.json").unlink(missing_ok=True)
        file = tmp_path / ("processor_config.json" if nested else "preprocessor_config.json")
        file.write_text(json.dumps({NESTED_FIELD: fields} if nested else fields))
        preprocessing = one_line_or_value(jf.load_images, tmp_path)
        if preprocessing is not None and max(np.atleast_1d(preprocessing.size)) < 300:
            num_read += 1
    assert num_read > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_random_configurations_are_read_or_refused(name, tmp_path):
    cases, config = FOLDERS[name]
    folder = write(tmp_path, config, cases.weights(config, 0))
    random = np.random.default_rng(0)
    num_read = 0
    for _ in range(250):
        fields = dict(config)
        for field in random.choice(sorted(config), random.integers(1, 3)):
            fields[str(field)] = VALUES[random.integers(len(VALUES))]
        (folder / "config.json").write_text(json.dumps(fields))
        num_read += one_line_or_value(jf.from_pretrained, folder) is not None
    assert num_read > 5
