"""Fields of a published `config.json`, each checked as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from jaxformers.errors import ConfigError, WeightsError, printable
from jaxformers.layers import Activation
from jaxformers.models.problem_type import ProblemType

LAYERS, LARGEST = 1 << 10, 1 << 24  # beyond these a damaged file would only fill the memory

Config = TypeVar("Config")
# Names of activations there -> ours; the first of each is the one that we write.
ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "tanh": "tanh",
}


def activation_name(activation: Activation) -> str:
    """How Hugging Face's files call one of our activations."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def class_names(config: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    """The classes' names from `id2label`; empty where it is missing or says nothing."""
    named = config.get("id2label")
    if not classes or not isinstance(named, dict) or set(named) != set(map(str, range(classes))):
        return ()
    names = tuple(str(named[str(i)]) for i in range(classes))
    return () if names == tuple(f"LABEL_{i}" for i in range(classes)) else names


def class_fields(
    names: tuple[str, ...], classes: int, problem_type: ProblemType | None = None
) -> dict[str, Any]:
    """`id2label`, `label2id` and, where it is stated, `problem_type` of a head's classes."""
    names = names or tuple(f"LABEL_{i}" for i in range(classes))
    stated = {"problem_type": problem_type} if problem_type else {}
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        **stated,
    }


class Fields:
    """A JSON object whose fields are checked as they are read."""

    def __init__(self, content: dict[str, Any], place: str):
        self.content, self.place = content, place

    def refuse(self, name: str, wish: str) -> WeightsError:
        """The error that says what a field is and what is wished for."""
        return WeightsError(
            f"{self.place}: {name} is {printable(repr(self.content[name]))}, {wish}"
        )

    def require(self, name: str, expected: Any) -> None:
        """The field, where it is given, must be this."""
        value = self.content.get(name)
        if value is not None and (type(value) is not type(expected) or value != expected):
            raise self.refuse(name, f"and only {expected!r} is supported")

    def size(self, name: str, default: int) -> int:
        """The field as a whole number above 0, of a size that a model may have."""
        value = self.content.get(name, default)
        if type(value) is not int or value < 1:
            raise self.refuse(name, "not a whole number above 0")
        if value > (LAYERS if name.endswith("_layers") else LARGEST):
            raise self.refuse(name, "larger than any model's")
        return value

    def rate(self, name: str, default: float) -> float:
        """The field as a number from 0 up to, but not including, 1."""
        value = self.content.get(name, default)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise self.refuse(name, "not a rate from 0 up to 1")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """The field as a bool."""
        value = self.content.get(name, default)
        if type(value) is not bool:
            raise self.refuse(name, "neither true nor false")
        return value

    def activation(self, name: str, default: str) -> Activation:
        """Our name of an activation."""
        value = self.content.get(name, default)
        if not isinstance(value, str) or value not in ACTIVATIONS:
            raise self.refuse(name, f"which is none of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[value]

    def positive(self, name: str, default: float) -> float:
        """The field as a number above 0."""
        value = self.content.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= LARGEST:
            raise self.refuse(name, f"not a number above 0 and at most {LARGEST:,}")
        return float(value)

    def epsilon(self, name: str, default: float) -> float:
        """A small number above 0."""
        value = self.content.get(name, default)
        if type(value) not in (int, float) or not 0 < value < 1:
            raise self.refuse(name, "not a small number above 0")
        return float(value)

    def architecture(self, refused: tuple[str, ...]) -> str | None:
        """The first of `architectures`, none of the refused ones."""
        names = self.content.get("architectures") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.refuse("architectures", "not a list of names")
        if names and names[0] in refused:
            raise WeightsError(f"{self.place}: the head of {names[0]} is not supported")
        return names[0] if names else None

    def choice(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str | None:
        """One of a few words; `default` when it is not given."""
        value = self.content.get(name, default)
        if value is not None and value not in choices:
            raise self.refuse(name, f"which is none of {', '.join(choices)}")
        return value

    def make(self, cls: Callable[..., Config], **values: Any) -> Config:
        """A configuration of these values, if it can be."""
        try:
            return cls(**values)
        except ConfigError as error:
            raise WeightsError(f"{self.place}: {error}") from None


def problem_type(fields: Fields) -> ProblemType | None:
    """What the logits of a classifier's `config.json` mean; None where it does not say.

    Raises:
        WeightsError: a word that transformers does not know.
    """
    return fields.choice("problem_type", get_args(ProblemType))
