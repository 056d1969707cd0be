"""Which weights of a checkpoint are meant: training wrappers' prefixes and sets, such as averages.

Training code stores a network under wrappers (`module.` of data parallelism, `_orig_mod.` of
torch.compile, `model.` of Lightning, `teacher.backbone.` of self-distillation), often beside the
moving average of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.mapping.name_map import TensorSource, listed
from jaxformers.pretrained.mapping.transforms import Shape

WRAPPERS = (
    "model",
    "state_dict",
    "model_state_dict",
    "module",
    "_orig_mod",
    "net",
    "network",
    "backbone",
    "base_encoder",
    "momentum_encoder",
    "student",
    "teacher",
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_state_dict",
)
PREFIX = re.compile(rf"(?:(?:{'|'.join(WRAPPERS)})\.)*")
# DINOv2's training stores layers in chunks: `blocks.{chunk}.{layer}.`, layers counted throughout.
CHUNK = re.compile(r"^blocks\.\d+\.(\d+)\.")
NESTED = 3  # dictionaries inside one another, of a checkpoint
# What training keeps beside a network: counts of averaged steps, heads of self-supervision.
COMPANION = re.compile(
    r"n_averaged|(head|dino_head|ibot_head)\.(mlp|last_layer)\..*|(predictor|dino_loss|ibot\w*)\..*"
)


class WeightSet:
    """Tensors of a source under names without their prefix."""

    def __init__(self, source: TensorSource, stored_names: Mapping[str, str]):
        self.place, self._source, self._stored_names = source.place, source, stored_names
        self.shapes: Mapping[str, Shape] = {
            name: source.shapes[stored] for name, stored in stored_names.items()
        }

    def read(self, name: str) -> np.ndarray:
        """The tensor of that name, float32."""
        return self._source.read(self._stored_names[name])


def select_weights(
    source: TensorSource,
    recognises: Callable[[Mapping[str, Shape]], bool],
    weights: str | None = None,
) -> TensorSource:
    """The one set of weights of a model in a file, its names without wrappers' prefixes.

    Args:
        source: the file.
        recognises: whether names and shapes are a known model's.
        weights: a wrapper of the set, such as "model_ema"; None: the file must hold one set.

    Returns:
        The source itself where nothing is recognised.

    Raises:
        WeightsError: several sets and no choice, a choice that is not there, or other tensors
            beside a set that was not chosen by name.
    """
    names = names_by_wrappers(source.shapes, source.place)
    sets = {label: WeightSet(source, stored_names) for label, stored_names in names.items()}
    models = {label: one_set for label, one_set in sets.items() if recognises(one_set.shapes)}
    if weights is not None:
        return models[choose_set(list(models), weights, source.place)]
    if not models:
        return source
    if len(models) > 1:
        raise several_sets(list(models), source.place)
    ((label, model),) = models.items()
    foreign = [
        f"{other}.{name}" if other else name
        for other, tensors in sets.items()
        for name in tensors.shapes
        if other != label and not COMPANION.fullmatch(name)
    ]
    if foreign:
        raise WeightsError(
            f"{source.place} holds {listed(foreign)} beside the weights {label!r}: choose "
            f"weights={label!r} to take those alone"
        )
    return model


def choose_set(labels: list[str], weights: str, place: str) -> str:
    """The one of `labels`, wrappers joined by dots, that is `weights` or has it as a wrapper.

    Raises:
        WeightsError: none, or several.
    """
    chosen = [label for label in labels if label == weights] or [
        label for label in labels if weights in label.split(".")
    ]
    if not chosen:
        names = listed(list(map(repr, labels))) or "none that is known"
        raise WeightsError(f"{place} holds no weights {weights!r}; it holds {names}")
    if len(chosen) > 1:
        raise several_sets(chosen, place)
    return chosen[0]


def several_sets(labels: list[str], place: str) -> WeightsError:
    """The error for a file of several sets of weights without a choice."""
    names, last = listed(list(map(repr, labels))), printable(labels[-1])
    return WeightsError(
        f"{place} holds several sets of weights ({names}): choose one, as in weights={last!r} or "
        f"convert's --weights {last}"
    )


def state_dicts(contents: Any) -> dict[str, dict[Any, Any]]:
    """Dictionaries inside a checkpoint that wrappers' keys lead to, by keys joined by dots.

    The checkpoint itself, "", is among them only where there is no other.
    """
    dicts: dict[str, dict[Any, Any]] = {}
    pending = [((), contents)]
    while pending:
        path, entries = pending.pop(0)
        inner = [
            ((*path, key), entries[key])
            for key in WRAPPERS
            if isinstance(entries, dict) and isinstance(entries.get(key), dict)
        ]
        if inner and len(path) < NESTED:
            pending += inner
        elif isinstance(entries, dict):
            dicts[".".join(path)] = entries
    return dicts


def names_by_wrappers(names: Iterable[str], place: str) -> dict[str, dict[str, str]]:
    """Names by the wrappers before them, joined by dots: `{wrappers: {plain name: name}}`.

    Raises:
        WeightsError: two names that are the same without their wrappers.
    """
    sets: dict[str, dict[str, str]] = {}
    for name in names:
        prefix = PREFIX.match(name)[0]
        plain_names = sets.setdefault(prefix.removesuffix("."), {})
        plain = CHUNK.sub(r"blocks.\1.", name.removeprefix(prefix))
        if plain in plain_names:
            raise WeightsError(f"{place}: {listed([plain_names[plain], name])} are the same tensor")
        plain_names[plain] = name
    return sets
