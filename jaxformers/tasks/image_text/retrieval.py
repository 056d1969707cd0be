"""Retrieval of images by captions and captions by images: metrics, and a figure of hits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Float
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
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DataError
from jaxformers.evaluation.retrieval import recall_at
from jaxformers.fields import CheckedFields, NonNegativeInt, PositiveInt
from jaxformers.interpret.figures import hits_figure
from jaxformers.models import CLIP
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.image_text.prompted_images import PromptedImages
from jaxformers.tasks.image_text.search import thumbnail
from jaxformers.tasks.processor import Processor

CaptionData = (
    BundledEmoji | CaptionFolder | CaptionTable | PromptedImages | TarShards | TfdsCaptions
)
HITS = 5  # images of a query in the figure


@dataclass(frozen=True, kw_only=True)
class RetrievalEvaluator(CheckedFields):
    """Recall of images by their first caption, and of captions by image, within a set.

    Images and captions that are equal answer one another: a caption's positives are all images with
    that caption.
    """

    BEST: ClassVar[str] = "dev_text_to_image_recall_10"

    name: str = "retrieval"
    dev: CaptionData
    rows: PositiveInt = 256
    """Images of a batch."""
    prefix: str = "dev"
    """Start of the metrics' names; each of several evaluators has its own."""
    queries: NonNegativeInt = 12
    """Captions, evenly spaced in the set, of which the final figure shows the nearest images."""

    def evaluate(self, model: CLIP, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`PREFIX_text_to_image_recall_K` and `PREFIX_image_to_text_recall_K` in percent."""
        images, length = open_cached(self.dev), model.config.text.context_length
        store = CaptionRows(images, processor.preprocessing, processor.tokenizer, length)
        run = _program(model, processor.preprocessing)
        rows = round_up_rows(min(self.rows, len(store)))
        outputs = [
            [np.asarray(embeds)[:count] for embeds in run(variables, batch)]
            for batch, count in every_row(store, rows)
        ]
        image, text = (np.concatenate(batches) for batches in zip(*outputs, strict=True))
        captions = np.array([images.captions(index)[0] for index in range(len(images))])
        positives = captions[:, None] == captions[None]
        metrics = {}
        for name, queries, candidates in (
            ("text_to_image", text, image),
            ("image_to_text", image, text),
        ):
            for k, recall in recall_at(queries, candidates, positives).items():
                metrics[f"{self.prefix}_{name}_recall_{k}"] = recall
        evaluation = Evaluation(metrics)
        if final and self.queries:
            title = f"Images nearest to a caption, {self.prefix.replace('_', ' ')} set"
            similarities = text @ image.T
            evaluation.figures[title] = retrieval_figure(
                images, captions, similarities, self.queries
            )
        return evaluation


def retrieval_figure(
    images: CaptionedImages,
    captions: np.ndarray,
    similarities: Float[np.ndarray, "n n"],
    num_queries: int,
) -> Figure:
    """Captions, and beside each the images nearest to it, the right ones framed in green.

    Args:
        images: n images.
        captions: their captions `[n]`, the queries.
        similarities: of each caption (row) and image (column).
        num_queries: captions that are drawn, evenly spaced.
    """
    queries = evenly_spaced(len(images), num_queries)
    nearest = np.argsort(-similarities[queries], axis=1, kind="stable")[:, :HITS]
    hits = [
        [(_thumbnail(images, index), float(similarities[query, index])) for index in row]
        for query, row in zip(queries, nearest, strict=True)
    ]
    right = captions[nearest] == captions[queries, None]
    return hits_figure(captions[queries].tolist(), hits, right.tolist(), columns=2)


def _thumbnail(images: CaptionedImages, index: int) -> np.ndarray | None:
    """An image for the figure; None where it does not decode."""
    with suppress(DataError), decoding(images.name(index)):
        return thumbnail(images.image(index))


@lru_cache(maxsize=4)
def open_cached(source: CaptionData) -> CaptionedImages:
    """The images of a set that is evaluated, read once."""
    return source.open()


@lru_cache(maxsize=2)
def _program(model: CLIP, preprocessing: Preprocessing):
    @jax.jit
    def run(variables, batch):
        images = preprocessing.normalised(batch["images"])
        embeds = model.apply(variables, images, batch["input_ids"], method="embed")
        return tuple(constrain(x, None, None) for x in embeds)

    return run
