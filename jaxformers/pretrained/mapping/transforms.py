"""How a tensor of a file becomes a variable of ours, and back: small reversible objects.

Each is led by the shape of our variable, so that a format need not repeat heads or widths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

Shape = tuple[int, ...]


@runtime_checkable
class Transform(Protocol):
    """One tensor of theirs to one or several of ours, and back.

    The shapes are those of our variables, of one layer where they are stacked.
    """

    def their_shape(self, *ours: Shape) -> Shape:
        """The shape of their tensor."""
        ...

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Our arrays, of the shapes `ours`."""
        ...

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Builds the tensor of the file from our arrays."""
        ...


@dataclass(frozen=True)
class Same:
    """The same array on both sides."""

    def their_shape(self, *ours: Shape) -> Shape:
        """The shape of our array."""
        return ours[0]

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """The same array."""
        return (theirs,)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """The same array."""
        return ours[0]


@dataclass(frozen=True)
class Linear:
    """PyTorch's `weight [out, in]` and our kernel `[*inputs, *outputs]`, of `inputs` dimensions.

    One input dimension serves plain layers and query, key and value `[D, H, K]`; two serve the
    output projection of attention `[H, K, D]`.
    """

    inputs: int = 1

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[out, in]`."""
        return math.prod(ours[0][self.inputs :]), math.prod(ours[0][: self.inputs])

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Transposes, then splits both sides into their dimensions."""
        return (theirs.T.reshape(ours[0]),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Flattens both sides, then transposes."""
        return ours[0].reshape(math.prod(ours[0].shape[: self.inputs]), -1).T


@dataclass(frozen=True)
class Joined:
    """TensorFlow's kernel `[in, out]` and ours `[*inputs, *outputs]`, of `inputs` dimensions."""

    inputs: int = 1

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[in, out]`."""
        return math.prod(ours[0][: self.inputs]), math.prod(ours[0][self.inputs :])

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Splits both sides into their dimensions."""
        return (theirs.reshape(ours[0]),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Flattens both sides."""
        return ours[0].reshape(self.their_shape(ours[0].shape))


@dataclass(frozen=True)
class Flat:
    """Our dimensions in one: the bias `[H, K]` of a projection into heads, theirs `[H * K]`.

    `lead` ones stand before it: theirs `[1, V]` for ours `[V]`.
    """

    lead: int = 0

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[1, ..., size]`."""
        return (1,) * self.lead + (math.prod(ours[0]),)

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Reshapes the array."""
        return (theirs.reshape(ours[0]),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Reshapes the array."""
        return ours[0].reshape(self.their_shape(ours[0].shape))


@dataclass(frozen=True)
class Convolution:
    """PyTorch's `weight [out, in, h, w]` and our kernel `[h, w, in, out]`."""

    def their_shape(self, *ours: Shape) -> Shape:
        """Shape `[out, in, h, w]`."""
        return ours[0][3], ours[0][2], ours[0][0], ours[0][1]

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Moves the channels last, outputs after inputs."""
        return (theirs.transpose(2, 3, 1, 0),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Moves the channels first, outputs before inputs."""
        return ours[0].transpose(3, 2, 0, 1)


@dataclass(frozen=True)
class Lead:
    """Ours with ones before its dimensions: theirs `[1, 1, D, N]` for ours `[D, N]`."""

    ones: int

    def their_shape(self, *ours: Shape) -> Shape:
        """Our shape behind `ones` dimensions of 1."""
        return (1,) * self.ones + tuple(ours[0])

    def to_ours(self, theirs: np.ndarray, *ours: Shape) -> tuple[np.ndarray, ...]:
        """Removes the dimensions of 1."""
        return (theirs.reshape(ours[0]),)

    def to_theirs(self, *ours: np.ndarray) -> np.ndarray:
        """Adds the dimensions of 1."""
        return ours[0].reshape(self.their_shape(ours[0].shape))
