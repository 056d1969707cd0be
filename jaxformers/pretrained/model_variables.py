"""A model's variables: their shapes without computing them, flat and nested, padded and not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from jax.sharding import AbstractMesh

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained.family import InputShapes, LoadedModel, Variables
from jaxformers.pretrained.mapping.name_map import NameMap, TensorSource, compare
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.registry import family_of

DEFAULT_EXECUTION = Execution()


def variable_shapes(model: nn.Module, execution: Execution = DEFAULT_EXECUTION) -> dict[str, Shape]:
    """Shapes of the model's variables by path (`params/encoder/...`), without computing them.

    With the default execution these are the published shapes: no padded vocabulary.

    Raises:
        WeightsError: a module of no registered family.
    """
    inputs = family_of(model).inputs(model.config)
    return dict(_traced_shapes(model.clone(execution=execution), inputs))


@lru_cache(maxsize=32)  # one load asks several times; a trace of CLIP's B/32 takes a second
def _traced_shapes(model: nn.Module, inputs: InputShapes) -> dict[str, Shape]:
    # Inside a training mesh `constrain` would check that one row divides over it, and it does not.
    with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
        variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return {path: tuple(leaf.shape) for path, leaf in flatten(variables).items()}


def published_shapes(model: nn.Module, place: str) -> dict[str, Shape]:
    """`variable_shapes` of a model whose configuration comes from a file.

    Raises:
        WeightsError: its sizes overflow, as those of a damaged file may.
    """
    try:
        return variable_shapes(model)
    except (OverflowError, MemoryError):
        raise WeightsError(f"{place}: the configuration is of a model too large to exist") from None


def flatten(variables: Variables) -> dict[str, Any]:
    """Leaves by path, such as `params/encoder/blocks/feed_forward/up/kernel`."""
    return traverse_util.flatten_dict(variables, sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def unpadded_arrays(model: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
    """The model's variables by path, float32, on this host, without the vocabulary's padding.

    Raises:
        WeightsError: names the variables that are missing, unexpected or misshapen.
    """
    shapes = variable_shapes(model)
    leaves = check_variables(model, variables)
    leaves = {path: np.asarray(jax.device_get(leaf), np.float32) for path, leaf in leaves.items()}
    return {path: _refit(leaf, shapes[path]) for path, leaf in leaves.items()}


def check_variables(model: nn.Module, variables: Variables) -> dict[str, Any]:
    """The model's variables by path, after a check that they fit it.

    Collections that are no variables of the model, such as sown probabilities, are left out.

    Raises:
        WeightsError: names the variables that are missing, unexpected or misshapen.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        raise WeightsError('the variables are no mapping with "params", as from_pretrained returns')
    stored = variable_shapes(model, model.execution)
    collections = {path.split("/")[0] for path in stored}
    leaves = {p: leaf for p, leaf in flatten(variables).items() if p.split("/")[0] in collections}
    compare("variables", stored, {path: np.shape(leaf) for path, leaf in leaves.items()})
    return leaves


def read_model(model: nn.Module, names: NameMap, source: TensorSource) -> LoadedModel:
    """The model, and its variables from a source of tensors with these names.

    Raises:
        WeightsError: tensors that do not fit it; one line.
    """
    shapes = published_shapes(model, source.place)
    return model, padded_variables(model, names.read(source, shapes))


def padded_variables(model: nn.Module, leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested variables as the model's execution stores them: the vocabulary padded with zeros."""
    shapes = variable_shapes(model, model.execution)
    return unflatten({path: _refit(leaf, shapes[path]) for path, leaf in leaves.items()})


def require_equal_fields(config: Any, expected: Any, names: Iterable[str], path: Any) -> None:
    """Checks that the configuration of weights agrees with a model's in the fields `names`.

    Raises:
        WeightsError: fields that differ, with the options to set.
    """
    values = {n: getattr(config, n) for n in names if getattr(config, n) != getattr(expected, n)}
    if values:
        text = ", ".join(f"{n} {value} (not {getattr(expected, n)})" for n, value in values.items())
        options = (f"--task.model.{n.replace('_', '-')} {value}" for n, value in values.items())
        raise WeightsError(f"the weights in {path} have {text}; set {' '.join(options)}")


def _refit(leaf: np.ndarray, shape: Shape) -> np.ndarray:
    """The leaf cut or padded with zeros at the end of each dimension."""
    if leaf.shape == shape:
        return leaf
    out = np.zeros(shape, leaf.dtype)
    common = tuple(slice(min(a, b)) for a, b in zip(leaf.shape, shape, strict=True))
    out[common] = leaf[common]
    return out
