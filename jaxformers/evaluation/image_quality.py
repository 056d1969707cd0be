"""How close reconstructed images are to their originals: PSNR and SSIM.

Axis letters: B batch, H and W height and width, C channels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from jaxformers.errors import DataError

WINDOW, SIGMA = 11, 1.5
# Constants of Wang et al. 2004, for images in 0..1.
C1, C2 = 0.01**2, 0.03**2


def psnr(
    images: Float[np.ndarray, "B H W C"], references: Float[np.ndarray, "B H W C"]
) -> Float[np.ndarray, "B"]:
    """Peak signal-to-noise ratio of each image in decibels: -10 log10 of the mean squared error.

    Args:
        images, references: pixels in 0..1.

    Returns:
        Float64 `[B]`; infinite for equal images.

    Raises:
        DataError: two shapes.
    """
    _check_shapes(images, references)
    error = np.square(images.astype(np.float64) - references).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


def ssim(
    images: Float[np.ndarray, "B H W C"], references: Float[np.ndarray, "B H W C"]
) -> Float[np.ndarray, "B"]:
    """Structural similarity of each image (Wang et al. 2004), the mean over channels and windows.

    Windows are Gaussian, 11 pixels wide with a deviation of 1.5, and lie within the image.

    Args:
        images, references: pixels in 0..1, at least 11 x 11.

    Returns:
        Float64 `[B]`, 1 for equal images.

    Raises:
        DataError: two shapes, or images smaller than a window.
    """
    _check_shapes(images, references)
    if min(images.shape[1:3]) < WINDOW:
        raise DataError(
            f"images of {images.shape[1]} x {images.shape[2]} pixels are smaller than SSIM's "
            f"window of {WINDOW}"
        )
    x, y = images.astype(np.float64), references.astype(np.float64)
    mean_x, mean_y = _blurred(x), _blurred(y)
    # Weighted variances and covariance of each window: E[xy] - E[x] E[y].
    variance_x = _blurred(x * x) - mean_x**2
    variance_y = _blurred(y * y) - mean_y**2
    covariance = _blurred(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similarity /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return similarity.mean((1, 2, 3))


def _blurred(x: np.ndarray) -> np.ndarray:
    """Gaussian means of all windows: `[B, H - 10, W - 10, C]`."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * np.square(offsets / SIGMA))
    weights /= weights.sum()
    for axis in (1, 2):
        length = x.shape[axis] - WINDOW + 1
        windows = (np.take(x, np.arange(i, i + length), axis) for i in range(WINDOW))
        x = sum(weight * window for weight, window in zip(weights, windows, strict=True))
    return x


def _check_shapes(images: np.ndarray, references: np.ndarray) -> None:
    if images.shape != references.shape:
        raise DataError(f"images {images.shape} and references {references.shape} differ in shape")
