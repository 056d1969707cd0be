"""Depth maps and masks as pictures."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxformers.data.scenes.composition import Scene

PAINTS = ((255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))


def depth_picture(
    depth: Float[np.ndarray, "H W"], farthest: float = 1.0
) -> UInt8[np.ndarray, "H W 3"]:
    """Depth in grey levels: 0 is black; `farthest` and what lies behind it is white."""
    grey = (255 * np.clip(depth / farthest, 0, 1)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def masks_of(scene: Scene, name: str) -> Bool[np.ndarray, "N S S"]:
    """The masks of all objects of a name, the nearest first."""
    return np.stack([obj.mask for obj in reversed(scene.objects) if obj.name == name])


def paint_masks(masks: Bool[np.ndarray, "N H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Up to four masks in white, red, green and blue on black; the first lies over the others."""
    picture = np.zeros((*masks.shape[1:], 3), np.uint8)
    for mask, colour in reversed(list(zip(masks, PAINTS, strict=False))):
        picture[mask] = colour
    return picture
