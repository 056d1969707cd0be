"""Every field of every family's `config.json` set to values that cannot be: one line, in time."""

from __future__ import annotations

import copy
import json
import time

import bert_cases
import clip_cases
import dino_cases
import encoder_cases
import marian_cases
import pytest
import resnet_cases
import vit_cases
from folders import write

from jaxformers.errors import WeightsError
from jaxformers.pretrained import load_pretrained, save_pretrained

VALUES = (-1, 0, 1, 7, 1 << 24, 10**30, 0.5, -0.5, float("nan"), 1e308, None, True)
VALUES += ("x" * 1000, "\x1b[2J", [], [1], [1 << 24] * 2, [[[]]], {}, {"a": 1})
SECONDS = 10.0  # of processor time, which other processes do not lengthen
CASES = {
    bert_cases: ("pretraining", "classifier"),
    encoder_cases: ("roberta_classes", "distilbert_words"),
    vit_cases: ("classifier", "mae"),
    marian_cases: tuple(marian_cases.CASES)[:1],
    resnet_cases: ("bottleneck", "bit"),
    dino_cases: ("deit_teacher", "dinov2_classifier"),
    clip_cases: ("clip", "siglip", "clip_text_projection", "siglip_vision"),
}
NAMES = [f"{module.__name__}-{name}" for module, names in CASES.items() for name in names]


def published(case, folder):
    """The folder of a case, by its module and name."""
    module_name, _, name = case.partition("-")
    module = next(module for module in CASES if module.__name__ == module_name)
    config = module.CASES[name]
    config = config[0] if isinstance(config, tuple) else config
    subject = clip_cases.shapes(name) if module is clip_cases else config
    return write(folder, config, module.weights(subject, 0))


def fields(config, path=()):
    """The paths of all fields of a configuration and of those inside it."""
    for name, value in config.items():
        yield (*path, name)
        if isinstance(value, dict) and not name.endswith(("2id", "2label")):
            yield from fields(value, (*path, name))


def changed(config, path, value):
    config = copy.deepcopy(config)
    inner = config
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return config


def sweep(folder):
    """Loads the folder under each change of its configuration; how many were refused."""
    config = json.loads((folder / "config.json").read_text())
    load_pretrained(folder)
    num_refused = 0
    for path in fields(config):
        for value in VALUES:
            (folder / "config.json").write_text(json.dumps(changed(config, path, value)))
            start = time.process_time()
            try:
                load_pretrained(folder)
            except WeightsError as error:
                line = str(error)
                assert "\n" not in line and len(line) < 1500, (path, value)
                assert all(char.isprintable() for char in line), (path, value)
                num_refused += 1
            assert time.process_time() - start < SECONDS, (path, value)
    return num_refused


@pytest.mark.slow
@pytest.mark.parametrize("case", NAMES)
def test_hugging_face_folders(case, tmp_path):
    assert sweep(published(case, tmp_path)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("case", ["bert_cases-classifier", "vit_cases-mae", "clip_cases-clip"])
def test_our_own_format(case, tmp_path):
    model, variables = load_pretrained(published(case, tmp_path / "published"))
    save_pretrained(model, variables, tmp_path / "own", format="jaxformers")
    assert sweep(tmp_path / "own") > 100
