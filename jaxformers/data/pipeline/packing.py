"""Packing: several examples a row, in dense batches of one shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxformers.data.pipeline.collate import (
    Batch,
    Chosen,
    PairStore,
    assemble,
    batch_shapes,
    nothing_fits,
)
from jaxformers.data.pipeline.shuffling import mixed_seed, shuffled
from jaxformers.fields import CheckedFields, PositiveInt

# More rows in a set pack denser and cost more time: 64 waste about one row in fifty.
ROWS_OF_A_SET = 64


@dataclass(frozen=True)
class Packing(CheckedFields):
    """Rows of several examples each, distinguished by segment ids; one shape for all batches.

    Examples longer than a row are dropped.
    """

    source_length: PositiveInt = 256
    """Source tokens in a row, eos included."""
    target_length: PositiveInt = 256
    """Target tokens in a row, eos included."""
    rows: PositiveInt = 96
    """Rows of a batch, over all hosts."""

    def plan(self, store: PairStore) -> PackingPlan:
        """The plan for the lengths of `store`; raises DataError where no example fits."""
        return PackingPlan(self, *store.lengths)


class PackingPlan:
    """Which examples share a row, and which rows the batch of a step has, for given lengths.

    Rows are packed once. They form one endless stream, reshuffled in each epoch, of which the batch
    of step s is entries s * `rows` to (s + 1) * `rows`: a pure function of (seed, step).
    """

    def __init__(
        self,
        config: Packing,
        source_lengths: Int[np.ndarray, "N"],
        target_lengths: Int[np.ndarray, "N"],
    ):
        limits = config.source_length, config.target_length
        fits = (source_lengths <= limits[0]) & (target_lengths <= limits[1])
        examples = np.flatnonzero(fits)
        if not len(examples):
            raise nothing_fits(len(source_lengths), "a row", limits)
        row_of = pack(source_lengths[examples], target_lengths[examples], limits)
        self._examples = examples[np.argsort(row_of, kind="stable")]
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of))])
        self._config = config
        self.row_count = len(self._offsets) - 1
        self.left_out = len(source_lengths) - len(examples)
        self.shapes = [batch_shapes(config.rows, *limits)]
        self.steps_per_epoch = -(-self.row_count // config.rows)
        self.fill = float(target_lengths[examples].sum() / (self.row_count * limits[1]))
        self.fingerprint = str(config)

    def rows(self, seed: int, step: int) -> int:
        """Number of rows of the batch of `step`: the same for every step."""
        return self._config.rows

    def batch(self, store: PairStore, seed: int, step: int, rows: slice = slice(None)) -> Batch:
        """Those `rows` of the batch of `step`: int32 arrays [B, S] and [B, T] (see `assemble`)."""
        config = self._config
        start, stop, _ = rows.indices(config.rows)
        # Rows start + k of step s are entries s * rows + k of the endless stream of packed rows, so
        # a batch needs (seed, step) alone and any host can make its own slice of it.
        packed = shuffled(step * config.rows + start, stop - start, self.row_count, seed)
        starts, ends = self._offsets[packed], self._offsets[packed + 1]
        row_of = np.repeat(np.arange(len(packed)), ends - starts)
        ranks = np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])
        chosen = Chosen(self._examples[ranks], row_of)
        return assemble(store, chosen, (stop - start, config.source_length, config.target_length))


def pack(
    source_lengths: Int[np.ndarray, "N"],
    target_lengths: Int[np.ndarray, "N"],
    limits: tuple[int, int],
) -> Int[np.ndarray, "N"]:
    """The row (0, 1, ...) of each example, so that no row exceeds `limits` and rows are few.

    Best fit, longest first, side by side in many small sets of rows: examples are sorted by
    length and dealt out to the sets like cards, one to each set at a time.
    """
    lengths = np.stack([source_lengths, target_lengths], axis=1).astype(np.int32)
    order = _longest_first(lengths, limits)
    # Best fit over all rows would cost O(examples x rows). Each of the `sets` has a few rows of its
    # own, and one NumPy step places an example in every set at once.
    sets = max(1, round((lengths.sum(axis=0) / limits).max() / ROWS_OF_A_SET))
    room = np.tile(np.array(limits, np.int32), (sets, 8, 1))  # [sets, rows of a set, 2]: free
    row_of = np.empty(len(lengths), np.int64)
    for start in range(0, len(order), sets):
        dealt = order[start : start + sets]
        hands = np.arange(len(dealt))
        if (room[:, -1] < limits).any():  # no set may run out of empty rows
            room = np.concatenate([room, np.full_like(room[:, :8], limits)], axis=1)
        chosen = _fullest_that_fits(room[: len(dealt)], lengths[dealt], limits)
        room[hands, chosen] -= lengths[dealt]
        row_of[dealt] = hands + sets * chosen
    return np.unique(row_of, return_inverse=True)[1]


def _longest_first(lengths: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Examples by falling length, mixed where equal, so that rows do not follow documents."""
    mixed = np.argsort(np.random.Philox(mixed_seed(len(lengths))).random_raw(len(lengths)))
    return mixed[np.argsort(-(lengths[mixed] / limits).max(axis=1), kind="stable")]


def _fullest_that_fits(
    room: Int[np.ndarray, "N R 2"], lengths: Int[np.ndarray, "N 2"], limits: tuple[int, int]
) -> Int[np.ndarray, "N"]:
    """For each example the row, of those that hold it, in which it leaves the least room."""
    source = room[..., 0] - lengths[:, :1]
    target = room[..., 1] - lengths[:, 1:]
    left = source / np.float32(limits[0]) + target / np.float32(limits[1])
    left[(source < 0) | (target < 0)] = np.inf
    return left.argmin(axis=1)
