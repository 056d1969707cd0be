"""Samples as arrays: tokens, patches of the input picture, the target picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64
from PIL import Image

from jaxformers.arrays import Array
from jaxformers.data import Batch
from jaxformers.data.mixture import MixturePlan, OpenMixture
from jaxformers.errors import ConfigError, DataError
from jaxformers.models.unified_io import UnifiedIOConfig
from jaxformers.tasks.text_image.base import Box, Picture, Sample, TextImageTask
from jaxformers.text.unified_io import UnifiedIOTokenizer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels
NUMBER_WORDS = 1  # words of a row before those that order its patches
# (input, output) of tasks, those with the largest rows first.
MODALITIES = (("image", "image"), ("text", "image"), ("image", "text"), ("text", "text"))
INPUT_PICTURE = {"patches", "patch_positions", "patch_mask"}  # arrays of a row
TARGET_PICTURE = {"target_images", "target_mask"}


def modality_buckets(tasks: Iterable[TextImageTask]) -> list[list[int]]:
    """The numbers of the tasks with the same (input, output), for each that there is."""
    modalities = [(task.INPUT, task.OUTPUT) for task in tasks]
    buckets = [[n for n, pair in enumerate(modalities) if pair == m] for m in MODALITIES]
    return [bucket for bucket in buckets if bucket]


def unused_arrays(task: TextImageTask) -> set[str]:
    """Names of the arrays of a row that hold nothing in any of the task's."""
    without_input = INPUT_PICTURE if task.INPUT == "text" else set()
    return without_input | (TARGET_PICTURE if task.OUTPUT == "text" else set())


def normalised_patches(patches: Array) -> Float[Array, "B P E"]:
    """Flat uint8 patches with ImageNet's mean and deviation."""
    pixels = jnp.asarray(patches).reshape(*patches.shape[:-1], -1, 3).astype(jnp.float32) / 255
    mean, std = (jnp.array(values)[None, None, None] for values in (MEAN, STD))
    return ((pixels - mean) / std).reshape(patches.shape)


class RowBuilder:
    """Arrays of one sample.

    Names and shapes: `input_ids` int32 [S]; `patches` uint8 [P, E] with `patch_positions` int32 and
    `patch_mask` int8 [P]; `target_ids` int32 [T], the eos included, 0 behind it; `target_images`
    uint8 [R, R, 3] and `target_mask` int8 [C], 0 for codes without a picture behind them.

    Args:
        tokenizer: of all texts.
        model: whose patches and codes they are; without an image tokenizer for texts alone.
        text_lengths: S and T.
        patches: P, of which as many are drawn; None: all.
    """

    def __init__(
        self,
        tokenizer: UnifiedIOTokenizer,
        model: UnifiedIOConfig,
        text_lengths: tuple[int, int],
        patches: int | None,
    ):
        self.tokenizer, self._model = tokenizer, model
        self.text_length, self._target_length = text_lengths
        grid = (model.image_rows // model.patch_size) * (model.image_columns // model.patch_size)
        if grid > model.encoder_image_length or model.image_rows != model.image_columns:
            raise ConfigError(
                f"pictures of {model.image_rows} x {model.image_columns} pixels are {grid} patches:"
                f" they are square, with at most {model.encoder_image_length} patches, as many as "
                "the model has positions"
            )
        self._patches = min(patches or model.encoder_image_length, grid)
        image_tokenizer = model.image_tokenizer  # None: no sample has a target picture
        self._side = 1 if image_tokenizer is None else image_tokenizer.resolution
        self._code_grid = 1 if image_tokenizer is None else image_tokenizer.grid
        self.draws = NUMBER_WORDS + grid
        self.fingerprint: dict[str, Any] = {
            "tokenizer": tokenizer.fingerprint,
            "lengths": [*text_lengths, self._patches, self._side],
        }

    def row(
        self,
        sample: Sample,
        ids: tuple[Sequence[int], Sequence[int]],
        words: UInt64[np.ndarray, "draws"],
        where: str,
    ) -> Batch:
        """The arrays of `sample`.

        Args:
            sample: whose pictures they are.
            ids: of prompt and target text, without eos.
            words: random; the first is the sample's, the others order its patches.
            where: what messages call the sample.

        Raises:
            DataError: a picture of another shape.
        """
        prompt, text = ids
        order, eos = words[NUMBER_WORDS:], self.tokenizer.eos_id
        # A text that is cut has no end: a model is not to learn that texts end there.
        target = [*text, eos][: self._target_length]
        image, has_target = sample.image, sample.target is not None
        pixels, visible = squared(image, self._model.image_rows, where)
        mask = _patch_mask(visible, image, sample.hidden, self._model.patch_size)  # [P]
        mask &= ~_masked_at_random(mask, sample.masked, order)
        positions = _subset(mask, order, self._patches)
        target_pixels, target_visible = squared(sample.target, self._side, where)
        step = self._side // self._code_grid
        return {
            "input_ids": _padded([*prompt[: self.text_length - 1], eos], self.text_length),
            "patches": _patches(pixels, self._model.patch_size)[positions],
            "patch_positions": positions.astype(np.int32),
            "patch_mask": mask[positions].astype(np.int8),
            "target_ids": _padded(target, self._target_length),
            "target_images": target_pixels,
            "target_mask": (target_visible[::step, ::step].ravel() & has_target).astype(np.int8),
        }


class TextImageRows:
    """Looks up the rows of batches: those of `RowBuilder` [n, ...], and `task` int32 [n].

    `task` numbers all tasks of the mixture, those without data included.

    Args:
        mixture: opened.
        builder: of the rows.
        by_modality: whether rows lack the arrays that no sample of their task needs.
    """

    def __init__(self, mixture: OpenMixture, builder: RowBuilder, by_modality: bool = False):
        self.names, self.examples = mixture.names, list(mixture.examples.values())
        self._builder, self.draws = builder, builder.draws
        self._by_modality = by_modality
        self._numbers = mixture.numbers
        self.fingerprint: dict[str, Any] = {
            "tasks": {name: entry.fingerprint for name, entry in mixture.examples.items()},
            **builder.fingerprint,
        }

    def gather(
        self,
        tasks: Int[np.ndarray, "n"],
        indices: Int[np.ndarray, "n"],
        words: UInt64[np.ndarray, "n draws"],
    ) -> Batch:
        """The rows of the examples `indices` of `tasks`, numbered as `mixture.names`.

        Raises:
            DataError: an example that cannot be used; the message names task and example.
        """
        rows = []
        for task, index, row_words in zip(tasks.tolist(), indices.tolist(), words, strict=True):
            sample = self.examples[task].sample(index, int(row_words[0]))
            rows.append(self.row(sample, task, row_words, f"{self.names[task]}, example {index:,}"))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def row(
        self, sample: Sample, task: int, words: UInt64[np.ndarray, "draws"], where: str
    ) -> Batch:
        """One sample of the task with this number in `names`, as arrays; `words` as for `gather`.

        Raises:
            DataError: no target, a picture of another shape, or one that the task's INPUT or
                OUTPUT denies.
        """
        if sample.text is None and sample.target is None:
            raise DataError(f"{where}: it has neither a text nor a picture as target")
        builder, definition = self._builder, self.examples[task].task
        longest = builder.text_length - 1
        ids = definition.ids(builder.tokenizer, sample, int(words[0]), longest)
        row = builder.row(sample, ids, words, where) | {"task": self._numbers[task]}
        if not self._by_modality:
            return row
        for kind, picture in (("INPUT", sample.image), ("OUTPUT", sample.target)):
            if picture is not None and getattr(definition, kind) == "text":
                raise DataError(
                    f"{where}: it has a picture as {kind.lower()}, and {kind} of "
                    f'{type(definition).__name__} is "text": state "image"'
                )
        unused = unused_arrays(definition)
        return {name: array for name, array in row.items() if name not in unused}


class TextImagePlan(MixturePlan):
    """Batches of a mixture, with the examples and epochs of each task up to them.

    `seen` float32 [rows, tasks] counts its examples, `epochs` its passes through them; both are 0
    for tasks without data.
    """

    def __init__(
        self,
        mixture: OpenMixture,
        store: TextImageRows,
        rows: int,
        buckets: Sequence[Sequence[int]] = (),
    ):
        super().__init__(mixture, store, rows, buckets)
        self._numbers, self._num_tasks = mixture.numbers, len(mixture.mixture.names)
        counts = ((rows, self._num_tasks), np.dtype(np.float32))
        self.shapes = [shapes | {"seen": counts, "epochs": counts} for shapes in self.shapes]

    def batch(self, store: Any, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`."""
        batch = super().batch(store, seed, step, rows)
        seen = self._draws.counts(seed, step + 1)
        counts = {"seen": seen, "epochs": seen / np.array(self._sizes)}
        for name, count in counts.items():
            all_tasks = np.zeros((len(batch["task"]), self._num_tasks), np.float32)
            all_tasks[:, self._numbers] = count
            batch[name] = all_tasks
        return batch


def squared(
    picture: Picture | None, side: int, where: str
) -> tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"]]:
    """The picture, its longer side resized to `side`, in the upper left of a black square."""
    square, visible = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), bool)
    if picture is None:
        return square, visible
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        raise DataError(
            f"{where}: a picture of {picture.dtype} {picture.shape} is not uint8 [H, W, 3]"
        )
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    height, width = (max(int(length * scale), 1) for length in (height, width))
    if scale != 1:
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        picture = np.asarray(resized)
    square[:height, :width], visible[:height, :width] = picture, True
    return square, visible


def _patch_mask(
    visible: Bool[np.ndarray, "S S"], image: Picture | None, hidden: Box | None, size: int
) -> Bool[np.ndarray, "P"]:
    """Whether each patch, row by row, is read: its upper left pixel decides."""
    visible = visible.copy()
    if image is not None and hidden is not None:
        scale = len(visible) / max(image.shape[:2])
        corners = np.round(np.array(hidden) * scale).astype(int)
        x1, y1, x2, y2 = np.clip(corners, 0, len(visible))  # a negative one counts from the end
        visible[y1:y2, x1:x2] = False
    return visible[::size, ::size].ravel()


def _masked_at_random(
    mask: Bool[np.ndarray, "P"], share: float, words: UInt64[np.ndarray, "P"]
) -> Bool[np.ndarray, "P"]:
    """A random `share` of the patches that are read, rounded."""
    masked = np.zeros(len(mask), bool)
    order = np.argsort(words, kind="stable")
    order = order[mask[order]]
    masked[order[: round(share * len(order))]] = True
    return masked


def _subset(
    mask: Bool[np.ndarray, "P"], words: UInt64[np.ndarray, "P"], count: int
) -> Int[np.ndarray, "count"]:
    """Positions of `count` random patches in their order; those that are not read come last."""
    if count == len(mask):
        return np.arange(count)
    # Which patches `_masked_at_random` takes is decided by the upper bits' order: reverse them.
    order = np.lexsort((~words, ~mask))
    return np.sort(order[:count])


def _patches(pixels: UInt8[np.ndarray, "S S C"], size: int) -> UInt8[np.ndarray, "P E"]:
    """Flat patches row by row, each in the order row, column, channel."""
    side, channels = len(pixels) // size, pixels.shape[2]
    grid = pixels.reshape(side, size, side, size, channels).swapaxes(1, 2)
    return grid.reshape(side * side, -1)


def _padded(ids: Sequence[int], length: int) -> Int[np.ndarray, "L"]:
    row = np.zeros(length, np.int32)
    row[: len(ids)] = ids
    return row
