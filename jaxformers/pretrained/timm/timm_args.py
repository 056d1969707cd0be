"""Constructor arguments of a timm model: its architecture's, and what a folder changes.

`architectures.json` holds timm's own arguments of every architecture that it builds from the
classes read here; `tests/fixtures/make_timm_architectures.py` writes it. Many of them change what a
network computes without changing the name or shape of a tensor, so an argument that is neither
understood nor known to matter in training alone is refused by name.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from etils import epath

from jaxformers.errors import WeightsError, did_you_mean
from jaxformers.layers import Activation
from jaxformers.pretrained.formats.safetensors_folder import CONFIG, WEIGHTS, read_json
from jaxformers.pretrained.mapping.config_fields import LARGEST

# Arguments that change training, initialisation or the building of the model, not its function.
SILENT = {
    "attn_drop_rate",
    "drop_block_rate",
    "drop_path_rate",
    "drop_rate",
    "dynamic_img_pad",
    "fix_init",
    "patch_drop_rate",
    "pos_drop_rate",
    "pretrained_strict",
    "proj_drop_rate",
    "weight_init",
    "zero_init_last",
}
# timm's names of activations, and the class names that its table has -> ours.
ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelutanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
POOLS = {
    "token": "class",
    "avg": "average",
    "max": "max",
    "avgmax": "average_max",
    "map": "attention",
}


def is_timm_config(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is timm's: it names an architecture, and no model type."""
    return isinstance(config.get("architecture"), str) and "model_type" not in config


def folder_of_timm_weights(path: Any) -> epath.Path | None:
    """The folder of a `model.safetensors` that timm's `config.json` lies beside; None: no such."""
    path = epath.Path(path).expanduser()
    config = path.parent / CONFIG
    if path.name != WEIGHTS or not path.is_file() or not config.exists():
        return None
    return path.parent if is_timm_config(read_json(config)) else None


@functools.cache
def architectures() -> dict[str, dict[str, Any]]:
    """By class of timm: arguments by architecture; under "unsupported": names by class."""
    return json.loads(resources.files(__package__).joinpath("architectures.json").read_text())


@dataclass(frozen=True)
class TimmArgs:
    """Arguments of one model; each is checked as it is read."""

    place: str
    """Path of the `config.json`."""
    config: Mapping[str, Any]
    """Its content."""
    architecture: str
    model_class: str
    """timm's class."""
    defaults: Mapping[str, Any]
    """The architecture's arguments."""
    changes: Mapping[str, Any]
    """`model_args`, and `global_pool` where that has none."""

    def get(self, name: str, default: Any = None) -> Any:
        """An argument as JSON has it; a null counts as not given, as it does in timm."""
        for source in (self.changes, self.defaults):
            if source.get(name) is not None:
                return source[name]
        return default

    def refuse(self, name: str, reason: str) -> WeightsError:
        """The error that says where an argument comes from, what it is, and what is wrong."""
        value = repr(self.get(name))[:80]
        if self.changes.get(name) is None:
            return WeightsError(
                f"{self.place}: architecture {self.architecture!r} has {name} {value}, {reason}"
            )
        prefix = "model_args." if name in self.config.get("model_args", {}) else ""
        return WeightsError(f"{self.place}: {prefix}{name} is {value}, {reason}")

    def only(self, name: str, *values: Any) -> None:
        """Refuses every value but these; the first is timm's default."""
        value = self.get(name, values[0])
        if not any(type(value) is type(choice) and value == choice for choice in values):
            raise self.refuse(name, f"and only {values[0]!r} is supported")

    def size(self, name: str, default: int) -> int:
        """A whole number above 0."""
        value = self.get(name, default)
        if type(value) is not int or not 0 < value <= LARGEST:
            raise self.refuse(name, "not a whole number above 0 of a model's size")
        return value

    def count(self, name: str) -> int:
        """A whole number, 0 where it is not given."""
        return self.size(name, 0) if self.get(name, 0) != 0 else 0

    def number(self, name: str, default: float | None) -> float | None:
        """A number above 0; `default` where it is not given."""
        value = self.get(name, default)
        if value is not None and (type(value) not in (int, float) or not 0 < value < LARGEST):
            raise self.refuse(name, "not a number above 0")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """The argument as a bool."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.refuse(name, "neither true nor false")
        return value

    def sizes(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """A short list of whole numbers above 0, such as one for each stage."""
        value = self.get(name, list(default))
        good = isinstance(value, list) and 0 < len(value) <= 16
        if not good or not all(type(n) is int and 0 < n <= 1 << 16 for n in value):
            raise self.refuse(name, "not a short list of whole numbers above 0")
        return tuple(value)

    def sides(self, name: str, default: int) -> tuple[int, int]:
        """Height and width in pixels; one number stands for both."""
        value = self.get(name, default)
        sides = value if isinstance(value, list) and len(value) == 2 else [value, value]
        if not all(type(side) is int and 0 < side <= 1 << 13 for side in sides):
            raise self.refuse(name, "not a side in pixels, nor height and width")
        return sides[0], sides[1]

    def activation(self, default: str) -> Activation:
        """Our name of `act_layer`."""
        value = self.get("act_layer", default)
        if not isinstance(value, str) or value.lower() not in ACTIVATIONS:
            raise self.refuse("act_layer", f"which is none of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value.lower()]

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """The argument as one of a few words."""
        value = self.get(name, default)
        if value not in choices:
            raise self.refuse(name, f"and only {', '.join(map(repr, choices))} are supported")
        return value

    def pooling(self, default: str, pools: tuple[str, ...]) -> str:
        """Our name of `global_pool`, which is one of `pools`."""
        return POOLS[self.choice("global_pool", default, pools)]

    def layer_norm_epsilon(self) -> float:
        """Epsilon of `norm_layer`, a layer norm; timm's has 1e-6."""
        value = self.get("norm_layer", "LayerNorm")
        match = re.fullmatch(r"LayerNorm(?:\(eps=([\d.e-]+)\))?|layernorm", str(value))
        if not match:
            raise self.refuse("norm_layer", "and only a layer norm is supported")
        return float(match[1] or 1e-6)

    def check_names(self, understood: Iterable[str]) -> None:
        """Refuses the first argument that is neither read nor silent."""
        for name in (*self.changes, *self.defaults):
            if name not in SILENT and name not in understood and self.get(name) is not None:
                raise self.refuse(name, "which is not supported")

    def image_size(self) -> tuple[int, int]:
        """Height and width that timm builds the model for: 224 unless the file says otherwise."""
        if self.get("img_size") is not None:
            return self.sides("img_size", 224)
        # timm passes it on where the size is fixed, which a dynamic size in `model_args` undoes.
        is_fixed = pretrained_config(self.config).get("fixed_input_size", False)
        if self.changes.get("dynamic_img_size") or not is_fixed:
            return 224, 224
        return self._input_size()[1:]

    def input_side(self) -> int:
        """Side of the square pictures that `pretrained_cfg` states."""
        _, height, width = self._input_size()
        if height != width:
            raise WeightsError(f"{self.place}: input_size {[height, width]} is no square")
        return height

    def input_channels(self) -> int:
        """Channels of the pictures."""
        return self._input_size()[0]

    def _input_size(self) -> tuple[int, int, int]:
        """Channels, height and width in `pretrained_cfg`."""
        size = pretrained_config(self.config).get("input_size", [3, 224, 224])
        if (
            not isinstance(size, list)
            or len(size) != 3
            or not all(type(n) is int and 0 < n <= 1 << 13 for n in size)
        ):
            raise WeightsError(f"{self.place}: input_size is {size!r}, not channels, height, width")
        return size[0], size[1], size[2]

    def class_names(self, classes: int) -> tuple[str, ...]:
        """`label_names`, a list or a dictionary by class; empty where they do not name them all.

        A class without a name in a dictionary with gaps is called by its number.
        """
        names = self.config.get("label_names") or self.config.get("labels")
        names = names or pretrained_config(self.config).get("label_names")
        if isinstance(names, dict):
            if not names or not {str(n) for n in names} <= {str(i) for i in range(classes)}:
                return ()
            names = [names.get(str(i), str(i)) for i in range(classes)]
        if not isinstance(names, list) or len(names) != classes:
            return ()
        return tuple(map(str, names))


def pretrained_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`pretrained_cfg`; the file itself in timm's oldest form, which has none."""
    inner = config.get("pretrained_cfg", config)
    return inner if isinstance(inner, dict) else {}


def read_timm_args(folder: epath.Path) -> TimmArgs:
    """What a folder's `config.json` says of its model.

    Raises:
        WeightsError: an architecture that is unknown or not supported, or a malformed file.
    """
    path = folder / CONFIG
    config = read_json(path)
    name = config["architecture"].partition(".")[0]  # the tag says whose weights they are
    model_class, defaults = _look_up(name, path)
    changes = config.get("model_args", {})
    if not isinstance(changes, dict):
        raise WeightsError(f"{path}: model_args is {changes!r}, not an object of arguments")
    pool, saved_pool = config.get("global_pool"), changes.get("global_pool")
    if pool is not None and saved_pool is not None and pool != saved_pool:
        raise WeightsError(
            f"{path}: global_pool is {pool!r} and model_args.global_pool {saved_pool!r}; they say "
            "how the model pools, and must agree"
        )
    changes = changes | ({} if pool is None else {"global_pool": pool})
    return TimmArgs(str(path), config, name, model_class, defaults, changes)


def _look_up(name: str, path: epath.Path) -> tuple[str, dict[str, Any]]:
    """timm's class of an architecture, and its arguments."""
    table = architectures()
    for model_class, entries in table["classes"].items():
        if name in entries:
            return model_class, entries[name]
    for model_class, names in table["unsupported"].items():
        if name in names:
            raise WeightsError(
                f"{path}: architecture {name!r} is built by timm's {model_class}, which is not "
                f"supported; {', '.join(table['classes'])} are"
            )
    names = [name for entries in table["classes"].values() for name in entries]
    raise WeightsError(
        f"{path}: architecture {name!r} is none of the {len(names)} that timm {table['timm']} "
        f"builds from {', '.join(table['classes'])}{did_you_mean(name, names)}"
    )
