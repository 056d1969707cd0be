"""The encoder of a published or trained text model under another head: where fine-tuning starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import flax.linen as nn
import numpy as np

from jaxformers.errors import WeightsError
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.formats.native_format import FORMAT
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, read_json
from jaxformers.pretrained.loading import load_folder
from jaxformers.pretrained.mapping.config_fields import class_names
from jaxformers.pretrained.model_variables import (
    flatten,
    require_equal_fields,
    unflatten,
    variable_shapes,
)
from jaxformers.pretrained.registry import family_of


def load_text_backbone(path: Any, model: nn.Module) -> dict[str, Any]:
    """The backbone's parameters in a folder or run, as nested NumPy arrays for `model`.

    With them the head, where both models have the same and it means the same on all data. What
    the file lacks, such as a pooler, is left out, and is initialised afresh.

    Args:
        path: a folder of published weights, of ours, a finished run, or a hub's name.
        model: a module of the same family, with a head or without.

    Raises:
        WeightsError: no such weights, another family, or other sizes: with the fields to set.
    """
    folder = resolve(path)
    loaded, variables = load_folder(folder, model.execution)
    return text_backbone(loaded, variables, model, folder)


def text_backbone(source: nn.Module, variables: Any, model: nn.Module, name: Any) -> dict[str, Any]:
    """The backbone's parameters of a model in memory, as nested NumPy arrays for another `model`.

    With them the head, as in `load_text_backbone`.

    Args:
        source: the module whose weights are taken.
        variables: its variables, whole on this host.
        model: a module of the same family, with a head or without.
        name: of the source, for messages.

    Raises:
        WeightsError: another family, or other sizes: with the fields to set.
    """
    family = family_of(model)
    if family_of(source) is not family:
        raise WeightsError(
            f"{name} holds a {type(source).__name__}; a {type(model).__name__} can only start "
            f"from weights of the family {family.name!r}"
        )
    fine_tuning = family.fine_tuning
    names = [f.name for f in fields(family.config) if f.name not in fine_tuning.free_fields]
    require_equal_fields(source.config, model.config, names, name)
    params = variables["params"]
    if type(source) is not type(model) or type(model) not in fine_tuning.transferable_heads:
        # Modules with a head keep the backbone's parameters one level down, under its name.
        backbone, bare = fine_tuning.backbone, next(iter(family.modules.values()))
        params = params if type(source) is bare else params[backbone]
        params = params if type(model) is bare else {backbone: params}
    shapes = variable_shapes(model, model.execution)
    leaves = flatten(params).items()
    return unflatten({p: np.asarray(leaf) for p, leaf in leaves if f"params/{p}" in shapes})


def stated_label_names(path: Any) -> tuple[str, ...]:
    """The classes that a model's configuration names; empty where it names none, or is not there.

    Args:
        path: a folder of published weights or of ours, a run, or a hub's name.
    """
    try:
        config = read_json(resolve(path) / CONFIG)
    except WeightsError:
        return ()
    if config.get("format") == FORMAT:
        fields = config.get("config")
        names = fields.get("label_names") if isinstance(fields, dict) else None
        return tuple(map(str, names)) if isinstance(names, list) else ()
    stated = config.get("id2label")
    return class_names(config, len(stated)) if isinstance(stated, dict) else ()
