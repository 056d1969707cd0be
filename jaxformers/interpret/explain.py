"""Relevance of patches and tokens for a model's predictions: images, texts, translations.

Axis letters: B batch, M scores explained for each example, P patches, L tokens, T target, S source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxformers.arrays import Array, check_finite
from jaxformers.errors import ConfigError, DataError, did_you_mean
from jaxformers.interpret.attention import (
    Attention,
    Explained,
    attention_maps,
    explained_attention,
    token_scores,
)
from jaxformers.interpret.relevance import (
    attribution,
    from_layer,
    generic,
    generic_translation,
    rollout,
)
from jaxformers.models.problem_type import ProblemType, class_scores

Method = Literal["attribution", "generic", "rollout", "attention"]
"""Chefer et al.'s of CVPR 2021 and of ICCV 2021, which tell classes apart; rollout and the last
layer's attention, which do not."""


class Explanation(NamedTuple):
    """Some classes of each example, and the relevance of its patches or tokens for them."""

    classes: Any
    """Integers `[B, M]`."""
    probabilities: Any
    """The model's, `[B, M]`, by its `problem_type`; of a regression the numbers themselves."""
    relevance: Any
    """`[B, M, P]` over patches, row after row; or `[B, M, L]` over tokens."""


class TranslationRelevance(NamedTuple):
    """Relevance of source and target tokens for each explained token of a translation."""

    source: Any
    """`[B, M, S]`: each source token's relevance."""
    target: Any
    """`[B, M, T]`: each decoder input's."""


def explain(
    model: nn.Module,
    variables: Any,
    images: Float[Array, "B H W C"],
    classes: Int[Array, "B M"] | None = None,
    method: Method = "attribution",
    *,
    top: int = 1,
    start_layer: int = 0,
) -> Explanation:
    """Relevance of an image's patches for some classes of a ViT.

    Args:
        model: a ViT with a head; computed in float32 whatever it says.
        variables: its variables.
        images: normalised pixels.
        classes: which classes to explain; None: the `top` most likely.
        method: how.
        top: how many, where `classes` is None. 1 explains the prediction as it stands.
        start_layer: the first layer that counts.

    Raises:
        ConfigError: an unknown method, no such layer, or a model without a head.
        DataError: a model without attention.
        WeightsError: outputs that are not finite.
    """
    _check_method(method)
    c = model.config
    if not getattr(c, "classes", 1):
        raise ConfigError("the model has no head, so no class to explain: load one with a head")
    pooling = getattr(c, "pooling", "class")
    if pooling not in ("class", "average", "class_average"):
        raise ConfigError(
            f"the model pools by {pooling!r}, whose share of each patch is not defined: explain "
            "takes models that pool by 'class', 'average' or 'class_average'"
        )
    explanation, matrix = _classified(
        model, variables, (images,), {}, classes, method, top, start_layer, c.problem_type
    )
    first = getattr(c, "prefix_tokens", 1)
    # The rows of what the heads read: of the class token (and the distillation token), or the mean
    # over the pooled patches, or of both.
    if pooling == "class":
        rows = matrix[:, :, : 1 + getattr(c, "distillation_head", False)].mean(2)
    else:
        rows = matrix[:, :, first:].mean(2)
        rows = rows if pooling == "average" else (matrix[:, :, 0] + rows) / 2
    return explanation._replace(relevance=np.asarray(rows[:, :, first:]))


def explain_text(
    model: nn.Module,
    variables: Any,
    input_ids: Int[Array, "B L"],
    token_type_ids: Int[Array, "B L"] | None = None,
    attention_mask: Int[Array, "B L"] | None = None,
    classes: Int[Array, "B M"] | None = None,
    method: Method = "attribution",
    *,
    top: int = 1,
    start_layer: int = 0,
) -> Explanation:
    """Relevance of a text's tokens for some classes of a BERT; as `explain`.

    The first token, over which the model classifies, is given none: its own place in the matrices
    is the residual's. Attribution divides rows by their sums, as its authors do for text.
    """
    _check_method(method)
    named = dict(token_type_ids=token_type_ids, attention_mask=attention_mask)
    explanation, matrix = _classified(
        model,
        variables,
        (input_ids,),
        named,
        classes,
        method,
        top,
        start_layer,
        model.config.resolved_problem_type,
        normalized=True,
    )
    relevance = np.array(matrix[:, :, 0])  # [B, M, L]
    relevance[:, :, 0] = 0
    return explanation._replace(relevance=relevance)


def explain_translation(
    model: nn.Module,
    variables: Any,
    source_ids: Int[Array, "B S"],
    target_in_ids: Int[Array, "B T"],
    source_mask: Int[Array, "B S"] | None = None,
    *,
    positions: Int[Array, "B M"] | None = None,
    tokens: Int[Array, "B M"] | None = None,
    method: Literal["attribution", "generic"] = "generic",
) -> TranslationRelevance:
    """Relevance of source tokens and earlier target tokens for tokens of a translation.

    Args:
        model: a translation Transformer; computed in float32 whatever it says.
        variables: its variables.
        source_ids, target_in_ids, source_mask: its inputs.
        positions: which decoder positions to explain; None: all.
        tokens: which next token at each; None: the likeliest.
        method: `generic`, or with propagated relevance in the probabilities' place `attribution`.
    """
    _check_method(method, ("attribution", "generic"))
    model, inputs = in_float32(model), (source_ids, target_in_ids)
    length = np.shape(target_in_ids)[1]
    if positions is None:
        positions = jnp.broadcast_to(jnp.arange(length)[None], np.shape(target_in_ids))
    positions = jnp.asarray(positions)
    named = dict(source_mask=source_mask)
    with jax.default_matmul_precision("highest"):
        if tokens is None:
            best = _outputs(model, variables, inputs, named).argmax(-1)
            tokens = jnp.take_along_axis(best, positions, axis=1)
        targets = (positions, jnp.asarray(tokens))  # [B, M] each
        lrp = method == "attribution"
        choices = dict(targets=targets, select=token_scores, relevance=lrp)
        e = explained_attention(model, variables, *inputs, **choices, **named)
        values = e.relevance if lrp else _for_each_score(e.probabilities)
        pairs = zip(values, e.gradients, strict=True)
        source, target = generic_translation(*pairs)  # [B, M, T, S] and [B, M, T, T]
        # Each score's row is that of the position whose next token it is.
    at = positions[:, :, None, None]
    source, target = (jnp.take_along_axis(x, at, axis=2)[:, :, 0] for x in (source, target))
    return TranslationRelevance(np.asarray(source), np.asarray(target))


def heat_map(
    relevance: Float[Array, "*batch P"], grid: tuple[int, int], image_size: tuple[int, int]
) -> Float[np.ndarray, "*batch H W"]:
    """Patches' relevance as a picture of `image_size` (height, width), bilinearly enlarged.

    Raises:
        DataError: the patches are not those of the grid (rows, columns).
    """
    relevance = np.asarray(relevance, np.float32)
    if relevance.shape[-1] != grid[0] * grid[1]:
        raise DataError(f"{relevance.shape[-1]} patches are not a grid of {grid[0]} x {grid[1]}")
    batch = relevance.shape[:-1]
    heat = jnp.asarray(relevance.reshape(*batch, *grid))
    return np.asarray(jax.image.resize(heat, (*batch, *image_size), "bilinear"))


def in_float32(model: nn.Module) -> nn.Module:
    """The model computed plainly and in float32: propagated relevance divides by small numbers."""
    execution = replace(model.execution, dtype="float32", remat="none", attention="plain")
    return model.clone(execution=execution)


def _classified(
    model,
    variables,
    inputs,
    named,
    classes,
    method,
    top,
    start_layer,
    problem_type: ProblemType | None,
    normalized: bool = False,
) -> tuple[Explanation, Array]:
    """The classes with their scores, and for each a matrix `[B, M, T, T]` over tokens."""
    model = in_float32(model)
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(_outputs(model, variables, inputs, named))  # [B, N]
        check_finite(logits)
        if classes is None:
            classes = np.argsort(-logits, axis=-1, kind="stable")[:, :top]
        classes = jnp.asarray(classes)
        if method in ("attribution", "generic"):
            lrp = method == "attribution"
            choices = dict(targets=classes, relevance=lrp)
            e = explained_attention(model, variables, *inputs, **choices, **named)
            matrix = _tokens(e, method, start_layer, normalized)
        else:
            maps = attention_maps(model, variables, *inputs, **named).encoder
            maps = from_layer(maps, start_layer)
            matrix = rollout(maps) if method == "rollout" else maps[-1].mean(1)
            # [B, T, T]: these two methods tell no classes apart, so all M share one matrix.
            shape = (*classes.shape, *matrix.shape[1:])
            matrix = jnp.broadcast_to(matrix[:, None], shape)
    scores = class_scores(logits, problem_type)
    scores = np.take_along_axis(scores, np.asarray(classes), axis=1)
    return Explanation(np.asarray(classes), scores, None), matrix


def _tokens(e: Explained, method: str, start_layer: int, normalized: bool) -> Array:
    if method == "attribution":
        choices = dict(start_layer=start_layer, normalized=normalized)
        return attribution(e.relevance.encoder, e.gradients.encoder, **choices)
    probabilities = _for_each_score(e.probabilities).encoder
    return generic(probabilities, e.gradients.encoder, start_layer=start_layer)


def _for_each_score(maps: Attention) -> Attention:
    """`[n, B, H, T, S]` to `[n, B, 1, H, T, S]`."""
    return jax.tree.map(lambda x: x[:, :, None], maps)


@partial(jax.jit, static_argnums=0)
def _outputs(model, variables, inputs, named) -> Array:
    return model.apply(variables, *inputs, **named)


def _check_method(method: str, methods: Sequence[str] = get_args(Method)) -> None:
    if method not in methods:
        hint = did_you_mean(str(method), methods) or f"; choose {', '.join(methods)}"
        raise ConfigError(f"no method {method!r} to explain with{hint}")
