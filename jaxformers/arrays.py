"""Types of public signatures: arrays, JAX's or NumPy's as they come from a notebook, image sizes.

Shapes stand beside it in jaxtyping's notation, `Float[Array, "B L D"]`. Axis letters: B batch,
L length (T target, S source), D model width, H heads, K width of a head, F feed-forward width,
V vocabulary, P patches, C channels, N classes.
"""

import jax
import numpy as np

from jaxformers.errors import WeightsError
from jaxformers.fields import PositiveInt

Array = jax.Array | np.ndarray
ImageSize = PositiveInt | tuple[PositiveInt, PositiveInt]
"""Pixels: the side of a square, or (height, width)."""


def height_width(size: ImageSize) -> tuple[int, int]:
    """Height and width of images of a size."""
    return size if isinstance(size, tuple) else (size, size)


def one_spelling(size: ImageSize) -> ImageSize:
    """The side alone where height and width are equal."""
    height, width = height_width(size)
    return height if height == width else (height, width)


def check_finite(outputs: np.ndarray) -> None:
    """Raises WeightsError where a model's outputs hold NaN or infinity."""
    if not np.isfinite(outputs).all():
        raise WeightsError(
            "the model's outputs are not finite (NaN or infinity): its weights are damaged, or too "
            "large for its compute type"
        )
