"""Explains how well an image and a text match: the patches and words on which CLIP's logit rests.

The rule is that of the CLIP notebook of Chefer et al., "Generic Attention-model Explainability"
(ICCV 2021): in each tower R = I, and R <- R + E_h (grad A_h * A_h)+ R from a layer on, by default
the last alone; of the image the class token's row, of the text that of its last token.

Axis letters: B batch, M texts, P patches, L tokens, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxformers.arrays import Array, check_finite
from jaxformers.data.images import Preprocessing
from jaxformers.errors import DataError, WeightsError
from jaxformers.interpret.attention import explained_attention
from jaxformers.interpret.explain import heat_map, in_float32
from jaxformers.interpret.explain_image import is_uniform, model_view, one_image
from jaxformers.interpret.explanation_figures import match_figure
from jaxformers.interpret.relevance import generic
from jaxformers.interpret.words import relevance_by_word
from jaxformers.models.clip import CLIP, CLIPImageConfig, CLIPImageTower, CLIPTextTower
from jaxformers.models.clip.outputs import normalise
from jaxformers.text import Tokenizer
from jaxformers.text.clip import padded_rows


@dataclass(frozen=True)
class ExplainedMatch:
    """Where in a picture and in which words its matches with texts rest; `figure()` draws them.

    Attributes:
        picture: what the model saw, `[H, W, C]` between 0 and 1.
        texts: as they were given.
        cosines: of the picture with each text, `[M]`.
        relevance: of the patches for each text's logit, row after row, `[M, P]`.
        heat: the same enlarged to the picture, `[M, H, W]`; 0 where no patch lies.
        tokens: of each text, without those of its start and end.
        token_relevance: of each text, of its tokens for its logit.
        words: of each text, its tokens that no blank divides joined; the tokens themselves where
            the tokenizer reads a word in its text otherwise than alone.
        word_relevance: of each text, the sums over the tokens of its words.
    """

    picture: np.ndarray
    texts: tuple[str, ...]
    cosines: np.ndarray
    relevance: np.ndarray
    heat: np.ndarray
    tokens: tuple[tuple[str, ...], ...]
    token_relevance: tuple[np.ndarray, ...]
    words: tuple[tuple[str, ...], ...]
    word_relevance: tuple[np.ndarray, ...]

    @property
    def uniform(self) -> bool:
        """Whether all pixels are alike, so that nothing in the picture speaks for a text."""
        return is_uniform(self.picture)

    def word_shares(self) -> tuple[np.ndarray, ...]:
        """The relevance of each text's words, divided by its sum; 0 where there is none."""
        return tuple(
            np.divide(row, row.sum(), out=np.zeros_like(row), where=row.sum() > 0)
            for row in self.word_relevance
        )

    def figure(self) -> Figure:
        """A row for each text: the picture, the heat map over it, and the text's words.

        Heat maps are on one scale, that of the logit, and words on one, their share of the text.
        """
        heat = np.zeros_like(self.heat) if self.uniform else self.heat
        titles = [f"cosine {cosine:.3f}" for cosine in self.cosines]
        return match_figure(self.picture, heat, titles, self.words, self.word_shares())


def explain_match(
    model: CLIP,
    variables: Any,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    picture: Any,
    texts: Sequence[str],
    *,
    start_layer: int | None = None,
    text_start_layer: int | None = None,
) -> ExplainedMatch:
    """The relevance of a picture's patches and of each text's words for the logit of both.

    Args:
        model: a `CLIP` whose image tower is a ViT with a class token; computed in float32.
        variables: its variables.
        tokenizer: that of its texts.
        preprocessing: that of its images.
        picture: a path, encoded bytes, a Pillow image or a uint8 array.
        texts: at least one.
        start_layer: the first layer of the image tower that counts; None: the last.
        text_start_layer: of the text tower; None: the last.

    Raises:
        ConfigError: no such layer.
        DataError: no text, one that is too long, or a picture that cannot be read.
        WeightsError: an image tower without a class token, or outputs that are not finite.
    """
    _check_towers(model)
    if not texts:
        raise DataError("no text to explain: give at least one")
    images = one_image(preprocessing, picture)
    length = model.config.text.context_length
    input_ids = padded_rows(tokenizer, texts, length, truncate=False)  # [M, L]
    model = in_float32(model)
    with jax.default_matmul_precision("highest"):
        image, text = _embeds(model, variables, images, input_ids)  # [1, E], [M, E]
        cosines = np.asarray(text @ image[0])
        check_finite(cosines)
        scale = jnp.exp(variables["params"]["logit_scale"])
        relevance = _image_relevance(model, variables, images, scale * text, start_layer)
        matrix, ends = _text_relevance(
            model, variables, input_ids, scale * image[0], text_start_layer
        )
    tokens, token_relevance, words, word_relevance = zip(
        *_by_token_and_word(tokenizer, texts, input_ids, matrix, ends), strict=True
    )
    return ExplainedMatch(
        model_view(images[0], preprocessing),
        tuple(texts),
        cosines,
        relevance,
        _heat(relevance, model.config.image),
        tokens,
        token_relevance,
        words,
        word_relevance,
    )


def image_scores(output: Any, texts: Float[Array, "B M E"]) -> Float[Array, "B M"]:
    """The logits of images with texts, whose vectors are multiplied by the scale already."""
    return jnp.einsum("BE,BME->BM", normalise(output.image_embeds), texts)


def text_scores(output: Any, images: Float[Array, "B M E"]) -> Float[Array, "B M"]:
    """The logits of texts with images, whose vectors are multiplied by the scale already."""
    return jnp.einsum("BE,BME->BM", normalise(output.text_embeds), images)


def _heat(relevance: Float[Array, "M P"], config: CLIPImageConfig) -> Float[np.ndarray, "M H W"]:
    """The heat maps, with zeros for the rows and columns that fill no patch."""
    grid, side = config.grid, config.patched_size
    rest = config.image_size - side
    heat = heat_map(relevance, (grid, grid), (side, side))
    return np.pad(heat, ((0, 0), (0, rest), (0, rest)))


@partial(jax.jit, static_argnums=0)
def _embeds(model, variables, images, input_ids) -> tuple[Array, Array]:
    return model.apply(variables, images, input_ids, method="embed")


def _check_towers(model: CLIP) -> None:
    image = model.config.image
    if not isinstance(image, CLIPImageConfig) or image.pooling != "class":
        kind = (
            "SigLIP's attention" if isinstance(image, CLIPImageConfig) else "a ResNet's attention"
        )
        raise WeightsError(
            f"the image tower pools by {kind}, for which the rule of Chefer et al. gives no "
            "relevance of patches: explain takes texts for a CLIP with a ViT and a class token"
        )


def _image_relevance(model, variables, images, texts, start_layer) -> Float[np.ndarray, "M P"]:
    """One text at a time: the gradients of all layers for many texts would not fit."""
    tower = CLIPImageTower(model.config.image, model.execution)
    params = {"params": variables["params"]["image"]}
    start = model.config.image.layers - 1 if start_layer is None else start_layer
    rows = []
    for text in texts:
        e = explained_attention(
            tower, params, images, targets=text[None, None], select=image_scores, relevance=False
        )
        # gradients [n, 1, 1, H, T, T]; without the axis of scores they pair with probabilities.
        matrix = generic(e.probabilities.encoder, e.gradients.encoder[:, :, 0], start_layer=start)
        rows.append(np.asarray(matrix[0, 0, 1:]))  # row of the class token, columns of the patches
    return np.stack(rows)


def _text_relevance(model, variables, input_ids, image, start_layer):
    """Matrices `[M, L, L]` of the texts, and the position of each text's last token."""
    tower = CLIPTextTower(model.config.text, model.execution)
    params = {"params": variables["params"]["text"]}
    start = model.config.text.layers - 1 if start_layer is None else start_layer
    targets = jnp.broadcast_to(image, (len(input_ids), 1, image.shape[-1]))
    # Each text with the image alone: a text's logit depends on no other text.
    e = explained_attention(
        tower, params, input_ids, targets=targets, select=text_scores, relevance=False
    )
    matrix = generic(e.probabilities.encoder, e.gradients.encoder[:, :, 0], start_layer=start)
    ends = tower.apply(params, input_ids, method="pooled_positions")
    return np.asarray(matrix), np.asarray(ends).tolist()


def _by_token_and_word(tokenizer, texts, input_ids, matrix, ends):
    """Of each text its tokens, their relevance, its words and theirs."""
    template = getattr(tokenizer, "template", None)
    start = len(template.single[0]) if template else 0
    for text, row_ids, relevance, end in zip(texts, input_ids, matrix, ends, strict=True):
        # The row of the token that is pooled, without the columns of the start and of itself.
        row, ids = relevance[end, start:end], row_ids[start:end].tolist()
        tokens = tuple(tokenizer.decode([[i] for i in ids])) if ids else ()
        yield tokens, row, *relevance_by_word(tokenizer, text, ids, tokens, row)
