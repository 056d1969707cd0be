"""The library's models by name, the shapes of their variables, and their padded vocabularies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import AbstractMesh

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import (
    MAE,
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BiT,
    BiTConfig,
    MAEConfig,
    ResNet,
    ResNetConfig,
    Transformer,
    TransformerConfig,
    ViT,
    ViTConfig,
)
from jaxformers.pretrained.mapping.name_map import NameMap, TensorSource, compare
from jaxformers.pretrained.mapping.transforms import Shape

Variables = Mapping[str, Any]
PLAIN = Execution()


class Family(NamedTuple):
    """A configuration class, a module, and the shapes of the inputs that make its variables."""

    config: type
    module: Callable[..., nn.Module]
    inputs: Callable[[Any], tuple[jax.ShapeDtypeStruct, ...]]


def _source_and_target(_: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),) * 2


def _tokens(_: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct((1, 1), jnp.int32),)


def _images(config: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    side = config.image_size
    return (jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32),)


FAMILIES: dict[str, Family] = {
    "transformer": Family(TransformerConfig, Transformer, _source_and_target),
    "bert": Family(BertConfig, Bert, _tokens),
    "bert_pretraining": Family(BertConfig, BertForPreTraining, _tokens),
    "bert_classification": Family(BertConfig, BertForSequenceClassification, _tokens),
    "bert_spans": Family(BertConfig, BertForSpanExtraction, _tokens),
    "bit": Family(BiTConfig, BiT, _images),
    "resnet": Family(ResNetConfig, ResNet, _images),
    "vit": Family(ViTConfig, ViT, _images),
    "mae": Family(MAEConfig, MAE, _images),
}


def family_of(model: nn.Module) -> str:
    """The name of a model's family.

    Raises:
        WeightsError: a module that is no model of the library.
    """
    for name, family in FAMILIES.items():
        if type(model) is family.module:
            return name
    raise WeightsError(
        f"{type(model).__name__} is no model of {', '.join(FAMILIES)}: its weights cannot be kept "
        "in this form"
    )


def variable_shapes(model: nn.Module, execution: Execution = PLAIN) -> dict[str, Shape]:
    """Shapes by path (`params/encoder/...`) of the model's variables, computed and not made.

    With the default execution these are the shapes that are published: no padded vocabulary.
    """
    inputs = FAMILIES[family_of(model)].inputs(model.config)
    model = model.clone(execution=execution)
    with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):  # one row divides over no mesh
        variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return {path: tuple(leaf.shape) for path, leaf in flatten(variables).items()}


def flatten(variables: Variables) -> dict[str, Any]:
    """Leaves by path, such as `params/encoder/blocks/feed_forward/up/kernel`."""
    return traverse_util.flatten_dict(variables, sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionary of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def published(model: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
    """The model's variables by path, float32, on this host, without the vocabulary's padding.

    Raises:
        WeightsError: names the variables that are missing, unexpected or misshapen.
    """
    kept = variable_shapes(model)
    leaves = {path: leaf for path, leaf in flatten(variables).items() if _collection(path, kept)}
    stored = variable_shapes(model, model.execution)
    compare("variables", stored, {path: np.shape(leaf) for path, leaf in leaves.items()})
    leaves = {path: np.asarray(jax.device_get(leaf), np.float32) for path, leaf in leaves.items()}
    return {path: _refit(leaf, kept[path]) for path, leaf in leaves.items()}


def read(
    model: nn.Module, names: NameMap, source: TensorSource
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and its variables from a source of tensors with these names.

    Raises:
        WeightsError: tensors that do not fit it; one line.
    """
    return model, loaded(model, names.read(source, variable_shapes(model)))


def loaded(model: nn.Module, leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Nested variables as the model's execution stores them: the vocabulary padded with zeros."""
    shapes = variable_shapes(model, model.execution)
    return unflatten({path: _refit(leaf, shapes[path]) for path, leaf in leaves.items()})


def require_same(found: Any, wanted: Any, names: Iterable[str], place: Any) -> None:
    """Raises WeightsError, with the options to set, where two configurations differ in `names`."""
    other = {n: getattr(found, n) for n in names if getattr(found, n) != getattr(wanted, n)}
    if other:
        said = ", ".join(f"{n} {value} (not {getattr(wanted, n)})" for n, value in other.items())
        options = (f"--task.model.{n.replace('_', '-')} {value}" for n, value in other.items())
        raise WeightsError(f"the weights in {place} have {said}; set {' '.join(options)}")


def _collection(path: str, kept: Mapping[str, Shape]) -> bool:
    """Whether the path is in a collection of the model (`probs`, say, is none)."""
    return path.split("/")[0] in {known.split("/")[0] for known in kept}


def _refit(leaf: np.ndarray, shape: Shape) -> np.ndarray:
    """The leaf cut or padded with zeros at the end of each dimension."""
    if leaf.shape == shape:
        return leaf
    out = np.zeros(shape, leaf.dtype)
    common = tuple(slice(min(a, b)) for a, b in zip(leaf.shape, shape, strict=True))
    out[common] = leaf[common]
    return out
