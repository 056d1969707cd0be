"""Rows of contrastive batches: an image and one of its captions, drawn by (seed, step, row)."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxformers.data.captions.captioned_images import MOST_THREADS, CaptionedImages
from jaxformers.data.images.augment.augmentation import Augmentation
from jaxformers.data.images.decoding import decoding
from jaxformers.data.images.preprocessing import Preprocessing
from jaxformers.data.pipeline.collate import Batch
from jaxformers.data.pipeline.fixed_length import RowPlan
from jaxformers.data.pipeline.shuffling import permuted
from jaxformers.data.pipeline.stateless_random import RowDraws, below, high, uniform
from jaxformers.text import Tokenizer
from jaxformers.text.clip import count_cut, padded_rows

AUGMENT = 6  # what the draws are for; shuffling has the seed alone
SAMPLED = 1000  # images whose captions are tokenized to report how many are cut


class CaptionRows:
    """`images` uint8 [n, S, S, C], `input_ids` int32 [n, L], `groups` int32 [n, 2].

    The groups are the number of the image and a hash of the caption: rows that share one of them
    are no true negatives of one another.

    Args:
        images: what is looked up.
        transform: `Augmentation` for training, `Preprocessing` for evaluation.
        tokenizer: of the captions.
        context_length: L; longer captions are cut, the end of text kept (see `count_cut`).
    """

    def __init__(
        self,
        images: CaptionedImages,
        transform: Augmentation | Preprocessing,
        tokenizer: Tokenizer,
        context_length: int,
    ):
        self.source, self.transform = images, transform
        self._tokenizer, self._length = tokenizer, context_length
        self.fingerprint: dict[str, Any] = images.fingerprint | {
            "transform": str(transform),
            "tokenizer": tokenizer.fingerprint,
            "context_length": context_length,
        }
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.source)

    @property
    def draws(self) -> int:
        """How many random words a row takes: the caption's, then those of the transform."""
        return 1 + self.transform.draws

    def count_cut(self) -> tuple[int, int]:
        """How many captions are cut, and of how many: those of `SAMPLED` images at most."""
        indices = range(0, len(self), -(-len(self) // SAMPLED))
        captions = [text for index in indices for text in self.source.captions(index)]
        return count_cut(self._tokenizer, captions, self._length), len(captions)

    def gather(self, indices: np.ndarray, words: np.ndarray | None = None) -> Batch:
        """The rows at `indices`.

        Args:
            indices: int [n].
            words: random 64-bit words [n, draws]; without them each image has its first caption.

        Raises:
            DataError: an image that does not decode, by its name.
        """
        choices = [self.source.captions(index) for index in indices.tolist()]
        if words is None:
            captions = [texts[0] for texts in choices]
            u = np.zeros((len(indices), self.transform.draws))
        else:
            numbers = below(high(words[:, 0]), np.array([len(texts) for texts in choices]))
            captions = [texts[n] for texts, n in zip(choices, numbers.tolist(), strict=True)]
            u = uniform(words[:, 1:])
        images = np.stack(list(self._mapped(indices.tolist(), u)))
        # 31 bits: two of the captions of a batch of 32,768 collide by chance in one batch of four.
        hashes = [zlib.crc32(caption.lower().encode()) & 0x7FFFFFFF for caption in captions]
        return {
            "images": images,
            "input_ids": padded_rows(self._tokenizer, captions, self._length),
            "groups": np.stack([indices, hashes], axis=1).astype(np.int32),
        }

    def _mapped(self, indices: list[int], u: np.ndarray):
        if len(indices) == 1:
            return map(self._image, indices, u)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS), "images")
        return self._pool.map(self._image, indices, u)

    def _image(self, index: int, u: np.ndarray) -> np.ndarray:
        with decoding(self.source.where(index)):
            return self.transform.picture(self.source.image(index), u)

    def __getstate__(self) -> dict:
        return vars(self) | {"_pool": None}


class CaptionPlan(RowPlan):
    """The next `rows` images of an endless shuffled stream, each with a caption drawn anew."""

    def batch(self, store: CaptionRows, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`."""
        batch_rows = range(self._rows)[rows]
        indices = permuted(step * self._rows + batch_rows.start, len(batch_rows), self._count, seed)
        draws = RowDraws((AUGMENT, seed, step), batch_rows, store.draws)
        return store.gather(indices, draws.words)
