"""The registry of model families: built-in ones, and those that a plug-in registers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import flax.linen as nn

from jaxformers.errors import ConfigError, WeightsError, did_you_mean
from jaxformers.pretrained.family import (
    Family,
    FolderFormat,
    HuggingFaceFormat,
    SingleFileFormat,
    TimmFormat,
)
from jaxformers.sharding import Row
from jaxformers.text import Tokenizer, register_tokenizer

Format = TypeVar("Format", HuggingFaceFormat, FolderFormat, TimmFormat, SingleFileFormat)
_families: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Makes a family known to loading, saving, fine-tuning, sharding and the verbs.

    A family of the same name is replaced, so that a notebook's cell may be run again.

    Returns:
        The family.

    Raises:
        ConfigError: another family has one of its modules, native names or model types.
    """
    for registered in _families.values():
        if registered.name == family.name:
            continue
        for kind, registered_names, names in (
            ("the native name", registered.modules, family.modules),
            ("the module", _class_names(registered), _class_names(family)),
            ("the model type", _model_types(registered), _model_types(family)),
        ):
            if common := sorted(set(registered_names) & set(names)):
                raise ConfigError(
                    f"family {family.name!r} has {kind} {common[0]!r} "
                    f"of family {registered.name!r}: choose another"
                )
    _families[family.name] = family
    for tokenizer_class in family.tokenizers:
        if tokenizer_class is not Tokenizer:  # the interface, for a family that takes any
            register_tokenizer(tokenizer_class)
    return family


def families() -> tuple[Family, ...]:
    """All registered families, built-in ones first."""
    return tuple(_families.values())


def family_of(model: nn.Module) -> Family:
    """The family that a model's module belongs to.

    Raises:
        WeightsError: a module of no registered family.
    """
    for family in families():
        if type(model) in family.modules.values():
            return family
    raise WeightsError(
        f"{type(model).__name__} is no model of {', '.join(native_modules())}: register its "
        "family with jaxformers.pretrained.register_family to load and save its weights"
    )


def native_name(model: nn.Module) -> str:
    """The name under which the native format saves a model's module.

    Raises:
        WeightsError: a module of no registered family.
    """
    modules = family_of(model).modules
    return next(name for name, module in modules.items() if type(model) is module)


def native_modules() -> dict[str, tuple[Family, type[nn.Module]]]:
    """Family and module by the name under which the native format saves it."""
    return {
        name: (family, module) for family in families() for name, module in family.modules.items()
    }


def formats(kind: type[Format]) -> list[Format]:
    """All registered published formats of one kind."""
    return [entry for family in families() for entry in family.formats if isinstance(entry, kind)]


def huggingface_formats() -> dict[str, HuggingFaceFormat]:
    """The formats of Hugging Face's folders by `model_type`."""
    return {entry.model_type: entry for entry in formats(HuggingFaceFormat)}


def modules_for(use: str) -> tuple[type[nn.Module], ...]:
    """Modules that can serve a function or verb such as "classify"."""
    return tuple(module for family in families() for module in family.uses.get(use, ()))


def configs_for(use: str) -> tuple[type, ...]:
    """Configuration classes of the families that can serve a function or verb."""
    return tuple(family.config for family in families() if use in family.uses)


def module_for(config: Any, use: str) -> type[nn.Module]:
    """The module that serves a use with a configuration of this class.

    Raises:
        ConfigError: no registered family has both.
    """
    for family in families():
        if family.config is type(config) and use in family.uses:
            return family.uses[use][0]
    raise ConfigError(
        f"{type(config).__name__} belongs to no family for {use}: choose one of "
        f"{', '.join(cls.__name__ for cls in configs_for(use))}"
    )


def shrink(config: Any) -> Any:
    """The same network with few and narrow layers, for a rehearsal."""
    return next(family for family in families() if family.config is type(config)).shrink(config)


def check_tokenizer(model: nn.Module, tokenizer: Any, place: Any) -> None:
    """Checks that a tokenizer can be that of a model's weights.

    The weights may have more rows than the tokenizer has tokens, as where the embedding was padded
    to a round size, except with the family's `exact_tokenizers`. Ids of special tokens must be
    those that the model's configuration states.

    Args:
        model: a model of a registered family that takes text.
        tokenizer: any object.
        place: where both come from, for the message.

    Raises:
        WeightsError: another kind of tokenizer, another number of tokens, or other special tokens.
    """
    family = family_of(model)
    if not isinstance(tokenizer, family.tokenizers):
        kind, expected = (
            type(tokenizer).__name__,
            " or ".join(c.__name__ for c in family.tokenizers),
        )
        raise WeightsError(
            f"{place} has a {kind} as its tokenizer; a {type(model).__name__} needs {expected}"
        )
    rows = model.config.vocab_size
    is_padded = tokenizer.vocab_size < rows and not isinstance(tokenizer, family.exact_tokenizers)
    if tokenizer.vocab_size != rows and not is_padded:
        raise WeightsError(
            f"the vocabulary of {place} has {tokenizer.vocab_size:,} tokens, but its weights have "
            f"{rows:,}; put the tokenizer of the weights there"
        )
    for name, stated in family.special_ids(model.config).items():
        if (token_id := getattr(tokenizer, name)) != stated:
            raise WeightsError(
                f"the tokenizer of {place} has {name} {token_id}, but its weights were trained "
                f"with {name} {stated}; put the tokenizer of the weights there"
            )


def sharding_rows() -> tuple[Row, ...]:
    """Sharding rows that registered families bring beside the library's table."""
    return tuple(row for family in families() for row in family.sharding_rows)


def no_such(kind: str, name: Any, choices: Iterable[str]) -> str:
    """A message for an unknown name: what it is, the choices, the closest of them."""
    names = list(choices)
    hint = did_you_mean(name, names) if isinstance(name, str) else ""
    return f"no {kind} {name!r}: choose {', '.join(names[:-1])} or {names[-1]}{hint}"


def _class_names(family: Family) -> set[str]:
    return {f"{cls.__module__}.{cls.__qualname__}" for cls in family.modules.values()}


def _model_types(family: Family) -> set[str]:
    return {entry.model_type for entry in family.formats if isinstance(entry, HuggingFaceFormat)}
