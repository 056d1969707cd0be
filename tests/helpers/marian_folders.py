"""Published folders written by the tests, from the random models of `fixtures/marian_cases.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import safetensors.numpy

from jaxformers.pretrained.model_variables import unflatten, variable_shapes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import marian_cases as cases

SMALL = cases.CASES["swish_deep_encoder"]


def write(folder: Path, config: dict, tensors: dict, **files: dict) -> Path:
    """A folder of these tensors, `config.json`, and further JSON files given as name=content."""
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def small(folder: Path, changes: dict | None = None, **files: dict) -> Path:
    """A small model with changed fields in its `config.json` (None: the field is left out)."""
    config = {k: v for k, v in (SMALL | (changes or {})).items() if v is not None}
    return write(folder, config, cases.weights(SMALL, 0), **files)


def random_variables(model) -> dict:
    """Variables of the model's shapes, N(0, 1): quicker than `model.init`."""
    random = np.random.RandomState(0)
    shapes = variable_shapes(model, model.execution)
    return unflatten({p: random.randn(*shape).astype(np.float32) for p, shape in shapes.items()})
