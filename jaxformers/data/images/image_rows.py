"""Pictures as rows of batches, each augmented by draws of (seed, step, row)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxformers.data.images.augment.augmentation import Augmentation
from jaxformers.data.images.decoding import decoding
from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.data.images.sources.labelled_images import ArrayImages, LabelledImages
from jaxformers.data.pipeline.collate import Batch
from jaxformers.data.pipeline.fixed_length import RowPlan
from jaxformers.data.pipeline.shuffling import permuted
from jaxformers.data.pipeline.stateless_random import RowDraws, uniform

AUGMENT = 4  # what the draws are for; shuffling has the seed alone
MOST_THREADS = 16


class ImageRows:
    """`images` uint8 [n, S, S, C] and, where there are labels, `labels` int32 [n].

    Pictures of one size in memory, with a simple augmentation, are done all at once; others one by
    one, in threads (Pillow lets go of the interpreter while it decodes and resizes).

    Args:
        images: what is looked up.
        transform: `Augmentation` for training, `Preprocessing` for evaluation.
        threads: that decode; None: one a core, at most 16.
    """

    def __init__(
        self,
        images: LabelledImages,
        transform: Augmentation | Preprocessing,
        threads: int | None = None,
    ):
        self.source, self.transform = images, transform
        self.fingerprint: dict[str, Any] = images.fingerprint | {"transform": str(transform)}
        self._threads = threads or min(os.cpu_count() or 1, MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, indices: np.ndarray, words: np.ndarray | None = None) -> Batch:
        """The rows at `indices`.

        Args:
            indices: int [n].
            words: random 64-bit words [n, transform.draws]; an augmentation needs them.

        Raises:
            DataError: a picture that does not decode, by its name.
        """
        draws = self.transform.draws
        u = np.zeros((len(indices), draws)) if words is None else uniform(words[:, :draws])
        if isinstance(self.source, ArrayImages):
            images = self.transform.arrays(self.source.images[indices], u)
            if images is not None:
                return self._batch(images, self.source.labels[indices])
        rows = list(self._mapped(indices.tolist(), u))
        labels = np.array([label for _, label in rows], np.int32)
        return self._batch(np.stack([image for image, _ in rows]), labels)

    def _batch(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        return {"images": images} | ({"labels": labels} if self.source.labelled else {})

    def _mapped(self, indices: list[int], u: np.ndarray):
        if self._threads == 1 or len(indices) == 1:
            return map(self._row, indices, u)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "pictures")
        return self._pool.map(self._row, indices, u)

    def _row(self, index: int, u: np.ndarray) -> tuple[np.ndarray, int]:
        with decoding(self.source.where(index)):
            picture, label = self.source.example(index)
            return self.transform.picture(picture, u), label

    def __getstate__(self) -> dict:
        return vars(self) | {"_pool": None}


class ImagePlan(RowPlan):
    """The next `rows` pictures of an endless shuffled stream, each augmented anew.

    Both the order and the draws are a function of (seed, step), whatever hosts, workers, threads
    and restarts.
    """

    def batch(self, store: ImageRows, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`."""
        batch_rows = range(self._rows)[rows]
        indices = permuted(step * self._rows + batch_rows.start, len(batch_rows), self._count, seed)
        draws = RowDraws((AUGMENT, seed, step), batch_rows, store.transform.draws)
        return store.gather(indices, draws.words)
