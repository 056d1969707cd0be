"""Retrieval of images by captions and captions by images: metrics, and a figure of hits."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from jaxformers.data.captions import (
    BundledEmoji,
    CaptionedImages,
    CaptionFolder,
    CaptionRows,
    CaptionTable,
    TarShards,
    TfdsCaptions,
)
from jaxformers.data.images import Preprocessing
from jaxformers.data.images.decoding import decoding
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DataError
from jaxformers.evaluation.retrieval import recall_at
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt
from jaxformers.interpret.figures import hits_figure
from jaxformers.models import CLIP
from jaxformers.models.clip.outputs import normalise
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import every_output
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.image_text.prompted_images import PromptedImages
from jaxformers.tasks.image_text.search import thumbnail
from jaxformers.tasks.image_text.zero_shot import embed_texts
from jaxformers.tasks.processor import Processor

CaptionData = (
    BundledEmoji | CaptionFolder | CaptionTable | PromptedImages | TarShards | TfdsCaptions
)
HITS = 5  # images of a query in the figure


@dataclass(frozen=True, kw_only=True)
class RetrievalEvaluator(CheckedFields):
    """Recall of images by caption, and of captions by image, within a set.

    A query counts if any of its positives is among the first K, as in the CLIP benchmarks: those of
    an image are all its captions, those of a caption all images that have it.
    """

    BEST: ClassVar[str] = "dev_text_to_image_recall_10"

    name: str = "retrieval"
    dev: CaptionData
    captions: PositiveInt | None = None
    """At most so many captions of an image count, the first ones, such as 5 of COCO; None: all."""
    rows: PositiveInt = 256
    """Images of a batch."""
    prefix: str = "dev"
    """Start of the metrics' names; each of several evaluators has its own."""
    queries: NonNegativeInt = 12
    """Captions, evenly spaced in the set, of which the final figure shows the nearest images."""

    def evaluate(self, model: CLIP, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`PREFIX_text_to_image_recall_K` and `PREFIX_image_to_text_recall_K` in percent."""
        images, tokenizer = open_cached(self.dev), processor.tokenizer
        rows = CaptionRows(
            images, processor.preprocessing, tokenizer, model.config.text.context_length
        )
        run = _image_program(model, processor.preprocessing)
        image = every_output(
            lambda batch: run(variables, batch["images"]), rows, min(self.rows, len(rows))
        )
        texts, positives = self.texts_and_positives(images)
        text = embed_texts(
            model, variables, tokenizer, texts, normalize=True, rows=min(self.rows, len(texts))
        )
        recalls = {
            "text_to_image": recall_at(text, image, positives),
            "image_to_text": recall_at(image, text, positives.T),
        }
        evaluation = Evaluation(
            {
                f"{self.prefix}_{direction}_recall_{k}": recall
                for direction, recall_by_k in recalls.items()
                for k, recall in recall_by_k.items()
            }
        )
        if final and self.queries:
            title = f"Images nearest to a caption, {self.prefix.replace('_', ' ')} set"
            shown = evenly_spaced(len(texts), self.queries)
            evaluation.figures[title] = retrieval_figure(
                images, [texts[query] for query in shown], text[shown] @ image.T, positives[shown]
            )
        return evaluation

    def rehearsal(self) -> RetrievalEvaluator:
        """The same on a few bundled drawings."""
        return replace(self, dev=BundledEmoji(("fluent",), limit=24))

    def texts_and_positives(
        self, images: CaptionedImages
    ) -> tuple[list[str], Bool[np.ndarray, "Q n"]]:
        """The captions of n images that count, and which images have them."""
        return caption_positives(
            [images.captions(index)[: self.captions] for index in range(len(images))]
        )


def caption_positives(
    captions: Sequence[Sequence[str]],
) -> tuple[list[str], Bool[np.ndarray, "Q n"]]:
    """All captions, image after image, and which images have them.

    Args:
        captions: of each of n images.

    Returns:
        Q captions, repeated ones included; for each of them, which images have it.
    """
    images_with: dict[str, list[int]] = {}
    for index, texts in enumerate(captions):
        for text in texts:
            images_with.setdefault(text, []).append(index)
    queries = [text for texts in captions for text in texts]
    positives = np.zeros((len(queries), len(captions)), bool)
    for row, text in zip(positives, queries, strict=True):
        row[images_with[text]] = True
    return queries, positives


def retrieval_figure(
    images: CaptionedImages,
    captions: Sequence[str],
    similarities: Float[np.ndarray, "Q n"],
    positives: Bool[np.ndarray, "Q n"],
) -> Figure:
    """Captions, and beside each the images nearest to it, the right ones framed in green.

    Args:
        images: n images.
        captions: Q captions, the queries.
        similarities: of each caption and image.
        positives: which images are right for which caption.
    """
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :HITS]
    hits = [
        [(_thumbnail(images, index), float(row[index])) for index in indices]
        for row, indices in zip(similarities, nearest, strict=True)
    ]
    right = np.take_along_axis(positives, nearest, axis=1)
    return hits_figure(list(captions), hits, right.tolist(), columns=2)


def _thumbnail(images: CaptionedImages, index: int) -> np.ndarray | None:
    """An image for the figure; None where it does not decode."""
    with suppress(DataError), decoding(images.name(index)):
        return thumbnail(images.image(index))


@lru_cache(maxsize=4)
def open_cached(source: CaptionData) -> CaptionedImages:
    """The images of a set that is evaluated, read once."""
    return source.open()


@lru_cache(maxsize=2)
def _image_program(model: CLIP, preprocessing: Preprocessing):
    @jax.jit
    def run(variables, images):
        encodings = model.apply(variables, preprocessing.normalised(images), method="encode_image")
        return constrain(normalise(encodings.astype(jnp.float32)), None, None)

    return run
