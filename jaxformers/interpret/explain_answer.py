"""Explains a text answer of Unified-IO: the words of its prompt and the patches that it rests on.

The rules are those for an encoder-decoder of Chefer et al., "Generic Attention-model Explainability
for Interpreting Bi-Modal and Encoder-Decoder Transformers" (ICCV 2021, equations 5 to 10): the
encoder's self-attention over text and patches, then each decoder layer's self-attention and
attention to the encoder.

Axis letters: B batch, M explained tokens, S prompt tokens, P patches, T decoder inputs, H and W
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from jaxformers.arrays import Array
from jaxformers.interpret.attention import explained_attention, token_scores
from jaxformers.interpret.explain import in_float32
from jaxformers.interpret.explain_image import is_uniform
from jaxformers.interpret.explanation_figures import match_figure
from jaxformers.interpret.relevance import generic_translation
from jaxformers.models.unified_io import UnifiedIO

DRAWN_TOKENS = 5  # rows of the figure below that of the whole answer
LONGEST_WORD = 50  # characters of a word in the figure


class AnswerRelevance(NamedTuple):
    """What the explained tokens of a text answer rest on; float32 arrays."""

    source: Any
    """`[B, M, S + P]`: of the encoder's inputs, text first; 0 for masked ones."""
    target: Any
    """`[B, M, T]`: of the decoder's inputs; the residual connection gives 1 to the token's own."""


def explain_answer(
    model: UnifiedIO,
    variables: Any,
    target_ids: Int[Array, "B T"],
    target_mask: Int[Array, "B T"] | None = None,
    *,
    positions: Int[Array, "B M"] | None = None,
    tokens: Int[Array, "B M"] | None = None,
    **inputs: Any,
) -> AnswerRelevance:
    """Relevance of prompt tokens, patches and earlier answer tokens for tokens of a text answer.

    Args:
        model: computed in float32 whatever its execution states.
        variables: its variables.
        target_ids: decoder inputs, shifted: 0, then the answer.
        target_mask: 1 for tokens, 0 for padding; None: no padding.
        positions: of the decoder inputs whose next token is explained; None: all.
        tokens: which next token at each position; None: the likeliest.
        **inputs: arguments of `UnifiedIO.encode` by name; text, an image or both.

    Raises:
        DataError: neither text nor image, or shapes that do not fit together.
    """
    model = in_float32(model)
    inputs = inputs | dict(target_ids=target_ids, target_mask=target_mask)
    inputs = {name: jnp.asarray(x) for name, x in inputs.items() if x is not None}
    if positions is None:
        positions = np.broadcast_to(np.arange(np.shape(target_ids)[1]), np.shape(target_ids))
    positions = jnp.asarray(positions)
    with jax.default_matmul_precision("highest"):
        if tokens is None:
            best = text_logits(model, variables, inputs).argmax(-1)  # [B, T]
            tokens = jnp.take_along_axis(best, positions, axis=1)
        tokens = jnp.asarray(tokens)
        # One token at a time: the gradients of all layers for many tokens would not fit.
        rows = [
            _token_relevance(model, variables, inputs, positions[:, m, None], tokens[:, m, None])
            for m in range(positions.shape[1])
        ]
    return AnswerRelevance(*(np.stack(x, axis=1) for x in zip(*rows, strict=True)))


@partial(jax.jit, static_argnums=0)
def text_logits(model: UnifiedIO, variables: Any, inputs: Any) -> Float[Array, "B T V"]:
    """Logits of the text after each decoder input; `inputs` are arguments of the model by name."""
    return model.apply(variables, **inputs).text_logits


@partial(jax.jit, static_argnums=0)
def _token_relevance(model, variables, inputs, position, token) -> tuple[Array, Array]:
    """Relevance `[B, S + P]` and `[B, T]` for the token `[B, 1]` after each position."""
    explained = explained_attention(
        model,
        variables,
        targets=(position, token),
        select=text_token_scores,
        relevance=False,
        **inputs,
    )
    # `explained_attention` keeps an axis of scores, of which there is one.
    gradients = jax.tree.map(lambda x: x[:, :, 0], explained.gradients)  # [n, B, H, T, S]
    pairs = zip(explained.probabilities, gradients, strict=True)
    # The score is of the token after `position`, so its row is that of the input there.
    return tuple(
        jnp.take_along_axis(x, position[:, :, None], axis=1)[:, 0]
        for x in generic_translation(*pairs)  # [B, T, S + P] and [B, T, T]
    )


def text_token_scores(output: Any, targets: tuple[Array, Array]) -> Float[Array, "B M"]:
    """The text logits of (positions, tokens), each `[B, M]`."""
    return token_scores(output.text_logits, targets)


@dataclass(frozen=True)
class ExplainedAnswer:
    """Which words of a prompt and which patches of a picture a text answer rests on.

    `figure()` draws them. Rows of relevance are those of the answer's tokens, M of them.

    Attributes:
        prompt: as it was given.
        answer: the text that is explained.
        tokens: of the answer, without its end.
        probabilities: the model's for each token after those before it, `[M]`.
        picture: what the model saw, `[H, W, 3]` between 0 and 1; None: there was none.
        relevance: of the patches, row after row, those below and beside the picture included,
            which have 0, `[M, P]`; P is 0 without a picture.
        heat: the same enlarged to the picture, `[M, H, W]`.
        prompt_tokens: of the prompt, without its end.
        token_relevance: of these, `[M, S]`.
        words: of the prompt, its tokens that no blank divides joined; the tokens themselves where
            the tokenizer reads a word in its text otherwise than alone.
        word_relevance: the sums over the tokens of each word, `[M, n]`.
        answer_relevance: of the answer's tokens for later ones, `[M, M]`.
    """

    prompt: str
    answer: str
    tokens: tuple[str, ...]
    probabilities: np.ndarray
    picture: np.ndarray | None
    relevance: np.ndarray
    heat: np.ndarray
    prompt_tokens: tuple[str, ...]
    token_relevance: np.ndarray
    words: tuple[str, ...]
    word_relevance: np.ndarray
    answer_relevance: np.ndarray

    @property
    def uniform(self) -> bool:
        """Whether all pixels are alike, so that nothing in the picture speaks for an answer."""
        return self.picture is not None and is_uniform(self.picture)

    def word_shares(self) -> Float[np.ndarray, "M+1 n"]:
        """Each word's share of the relevance of prompt and picture together.

        The first row is of the whole answer, by the mean relevance over its tokens; then a row for
        each token. 0 where there is no relevance.
        """
        return _shares(_with_mean(self.word_relevance), self._totals())

    def picture_shares(self) -> Float[np.ndarray, "M+1"]:
        """The picture's share of the relevance of prompt and picture; rows as `word_shares`."""
        patches = _with_mean(self.relevance).sum(-1, keepdims=True)
        return _shares(patches, self._totals())[:, 0]

    def _totals(self) -> Float[np.ndarray, "M+1 1"]:
        # Words and patches are inputs of one encoder: their relevance adds up.
        both = np.concatenate([self.word_relevance, self.relevance], axis=1)
        return _with_mean(both).sum(-1, keepdims=True)

    def figure(self) -> Figure:
        """A row for the whole answer and for each of its first tokens.

        A row has the picture, its heat map, and the prompt with its words on red. Heat maps are on
        one scale, that of the token's logit, and words on one, their share of the relevance.
        """
        titles = [f"{self.answer!r:.60}"]
        if len(self.tokens) > 1:
            pairs = zip(self.tokens[:DRAWN_TOKENS], self.probabilities, strict=False)
            titles += [f"{token} {probability:.1%}" for token, probability in pairs]
        heat = np.zeros_like(self.heat) if self.uniform else self.heat
        heat, shares = _with_mean(heat)[: len(titles)], self.word_shares()[: len(titles)]
        # A run of unknown characters is one token, however long.
        words = [
            word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}..."
            for word in self.words
        ]
        return match_figure(self.picture, heat, titles, [words] * len(titles), shares)


def _with_mean(rows: Float[np.ndarray, "M *shape"]) -> Float[np.ndarray, "M+1 *shape"]:
    """The mean of the rows, and the rows."""
    return np.concatenate([rows.mean(0, keepdims=True), rows])


def _shares(
    values: Float[np.ndarray, "M n"], totals: Float[np.ndarray, "M 1"]
) -> Float[np.ndarray, "M n"]:
    return np.divide(values, totals, out=np.zeros_like(values), where=totals > 0)
