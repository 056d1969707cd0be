"""Pre-training: spans of a text, or patches of a picture, are removed and restored.

Text as in T5 (Raffel et al. 2020, section 3.1.4): 15 % of the tokens, in spans of three on
average, each replaced by a sentinel; the target is every sentinel with its span. Pictures as in
Unified-IO's section 3.3: three patches in four are masked, the target is the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.data.scenes import Scene, captions
from jaxformers.fields import OpenFraction, PositiveFloat
from jaxformers.tasks.text_image.base import (
    Record,
    Sample,
    TextImageTask,
    as_list,
    choose,
    exact_match,
)
from jaxformers.tasks.text_image.pictures.synthesis import PictureTask
from jaxformers.tasks.text_image.texts.bundled import BundledTexts
from jaxformers.tasks.text_image.texts.language import TextSource
from jaxformers.text.unified_io import UnifiedIOTokenizer, read_text
from jaxformers.text.unified_io.tokenizer import SENTINELS

SPANS = 41  # what the draws are for


@dataclass(frozen=True)
class TextDenoising(TextImageTask):
    """Spans of `text` are replaced by sentinels; the target holds them."""

    FEATURES: ClassVar[tuple[str, ...]] = ("text",)
    INPUT: ClassVar[str] = "text"
    BEST: ClassVar[str] = "exact"

    source: TextSource = field(default_factory=BundledTexts)
    noise: OpenFraction = 0.15
    """Share of the tokens that are removed."""
    mean_span: PositiveFloat = 3.0
    """Tokens of a span on average."""

    def sample(self, record: Record, word: int) -> Sample:
        """The text on both sides; `ids` takes its spans out."""
        return Sample(record["text"], text=record["text"], truth=record["text"])

    def ids(
        self, tokenizer: UnifiedIOTokenizer, sample: Sample, word: int, longest: int
    ) -> tuple[list[int], list[int]]:
        """Input with sentinels in place of spans, and target of sentinels with their spans.

        Args:
            tokenizer: of both.
            sample: whose text is corrupted.
            word: random.
            longest: tokens of the text that are read, a stretch drawn by `word`.
        """
        tokens = tokenizer.encode(sample.prompt)[0]
        words = Draws(SPANS, word >> 32, word & 0xFFFFFFFF)
        start = int(words.words(1)[0] >> np.uint64(32)) % max(len(tokens) - longest + 1, 1)
        tokens = tokens[start : start + longest]
        if len(tokens) < 2:
            return tokens, [tokenizer.sentinel_id(0)]
        return with_sentinels(
            tokenizer, tokens, noise_mask(len(tokens), self.noise, self.mean_span, words)
        )

    def truth(
        self, tokenizer: UnifiedIOTokenizer, sample: Sample, target_ids: Sequence[int]
    ) -> str:
        """The removed spans, which were drawn with the row."""
        return read_text(tokenizer, target_ids).text

    def metrics(self, answers: Sequence[str], truths: Sequence[str]) -> dict[str, float]:
        """`exact` restorations of all spans of a row, in percent."""
        return {"exact": exact_match(answers, truths)}


@dataclass(frozen=True)
class ImageDenoising(PictureTask):
    """A picture from a quarter of its patches: feature `image`; `captions` may be given."""

    PROMPT: ClassVar[str] = 'What is the complete image? Text: " {text} " .'
    FEATURES: ClassVar[tuple[str, ...]] = ("image",)

    masked: OpenFraction = 0.75
    """Share of the patches that are masked."""

    def sample(self, record: Record, word: int) -> Sample:
        """The prompt holds a caption where there is one."""
        text = choose(as_list(record["captions"]), word) if record.get("captions") else ""
        image = record["image"]
        return Sample(
            self.PROMPT.format(text=text), image, target=image, truth=image, masked=self.masked
        )

    def scene_record(self, scene: Scene, word: int) -> Record:
        """With the scene's caption for every second word, else without one."""
        return {"image": scene.image, "captions": captions(scene)[:1] if word & 1 else ()}


def noise_mask(length: int, noise: float, mean_span: float, draws: Draws) -> Bool[np.ndarray, "L"]:
    """T5's mask of removed tokens: spans of kept and removed tokens by turns, kept ones first.

    Exactly round(length * noise) tokens are removed, at least one and not all, in
    round(that / mean_span) spans; both are cut at random into stretches of at least one token.

    Args:
        length: of the text, at least 2.
        noise: share of tokens that are removed.
        mean_span: tokens of a span on average.
        draws: random words.
    """
    removed = min(max(round(length * noise), 1), length - 1)
    spans = min(max(round(removed / mean_span), 1), removed, length - removed, SENTINELS)
    removed_lengths = _random_lengths(removed, spans, draws)
    retained_lengths = _random_lengths(length - removed, spans, draws)
    lengths = np.stack([retained_lengths, removed_lengths], axis=1).ravel()
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def with_sentinels(
    tokenizer: UnifiedIOTokenizer, tokens: Sequence[int], mask: Bool[np.ndarray, "L"]
) -> tuple[list[int], list[int]]:
    """The tokens with a sentinel for each removed span, and each sentinel with its span."""
    inputs: list[int] = []
    target: list[int] = []
    number = 0
    for token, removed, after_removed in zip(tokens, mask, [False, *mask[:-1]], strict=True):
        if removed and not after_removed:
            inputs.append(tokenizer.sentinel_id(number))
            target.append(tokenizer.sentinel_id(number))
            number += 1
        (target if removed else inputs).append(token)
    return inputs, target


def _random_lengths(total: int, count: int, draws: Draws) -> np.ndarray:
    """`total` cut into `count` stretches of at least 1, every way of cutting alike likely."""
    order = np.argsort(draws.words(total - 1), kind="stable") if total > 1 else np.zeros(0, int)
    cuts = np.sort(order[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
