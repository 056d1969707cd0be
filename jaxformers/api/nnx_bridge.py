"""Flax NNX: our Linen modules as NNX modules, and their variables back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
from jax import tree

from jaxformers.errors import ConfigError

if TYPE_CHECKING:
    from flax import nnx


def to_nnx(
    model: nn.Module, variables: dict | None = None, rngs: nnx.Rngs | None = None
) -> nnx.bridge.ToNNX:
    """A Flax NNX module that computes what the Linen module computes.

    It holds the variables as `nnx.Param` (and `nnx.BatchStat`) and works with `nnx.jit`,
    `nnx.grad` and `nnx.Optimizer`, alone or inside another NNX module. It is called with the
    arguments of `model`: `module(images, train=True, mutable=["batch_stats"])` updates running
    statistics in place; other methods of `model` are methods of it.

    Args:
        model: any Linen module, such as `jf.ViT(config)` or a block of `jf.layers`.
        variables: its variables, as of `model.init` or `jf.from_pretrained`; None: call
            `.lazy_init(*inputs)` on the result, for which `rngs` needs a key "params".
        rngs: keys by name, such as `nnx.Rngs(dropout=0)` for calls with `train=True`.

    Returns:
        A `flax.nnx.bridge.ToNNX`.

    Raises:
        ConfigError: `model` is no Linen module, or `variables` lacks the collection "params".

    Example:
        >>> from flax import nnx
        >>> module = jf.to_nnx(*jf.from_pretrained("google/vit-base-patch16-224"))
        >>> images = jf.load_images("google/vit-base-patch16-224")("photo.png")
        >>> nnx.jit(lambda module, images: module(images))(module, images).shape
        (1, ...)
    """
    from flax import nnx
    from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs

    if not isinstance(model, nn.Module):
        raise ConfigError(f"to_nnx takes a Flax Linen module, not a {type(model).__name__}")
    module = nnx.bridge.ToNNX(model, rngs)
    if variables is None:
        return module
    if "params" not in variables:
        names = ", ".join(map(str, variables)) or "nothing"
        raise ConfigError(f'variables: no collection "params", but {names}; give all of init(...)')
    attributes = linen_vars_to_nnx_attrs(tree.map(jnp.asarray, dict(variables)))
    for name, value in attributes.items():
        setattr(module, name, nnx.data(value))
    return module


def from_nnx(module: nnx.bridge.ToNNX) -> tuple[nn.Module, dict[str, Any]]:
    """The Linen module and the variables of what `to_nnx` returned, for `jf.save_pretrained`.

    Args:
        module: a result of `to_nnx`, whose variables may have been trained since.

    Returns:
        `(model, variables)` for `model.apply(variables, ...)`.

    Raises:
        ConfigError: an NNX module that `to_nnx` did not make.

    Example:
        >>> model, variables = jf.from_pretrained("google/vit-base-patch16-224")
        >>> same, values = jf.from_nnx(jf.to_nnx(model, variables))
        >>> same == model and jax.tree.structure(values) == jax.tree.structure(variables)
        True
    """
    from flax import nnx
    from flax.nnx.bridge.variables import nnx_attrs_to_linen_vars

    if not isinstance(module, nnx.bridge.ToNNX):
        raise ConfigError(f"from_nnx takes a result of to_nnx, not a {type(module).__name__}")
    own = ("to_nnx__", "_pytree__")  # what the bridge itself keeps
    attributes = {k: v for k, v in vars(module).items() if not k.startswith(own)}
    return module.to_nnx__module, nnx_attrs_to_linen_vars(attributes)
