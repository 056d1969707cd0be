"""A scene: objects placed, scaled and overlapped on a ground, with masks, boxes and depth.

Nearer objects are larger, lie before the others, and are brighter in the depth map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

from jaxformers.data.pipeline.stateless_random import Draws, below, high, uniform
from jaxformers.data.scenes.drawings import THINGS, Drawing, drawings
from jaxformers.data.scenes.grounds import COLOURS, PATTERNS, Ground

SCENES = 31  # what the draws are for
REPEATED = 0.35  # chance that an object is the same thing as one before it
ATTEMPTS = 24
LEAST_VISIBLE = 0.5  # share of every object that no nearer one hides
FAR_DEPTH = 0.2  # of the farthest possible object; the ground is 0


class SceneObject(NamedTuple):
    """An object of a scene.

    Attributes:
        drawing: what was drawn.
        nearness: 0 (far) to below 1 (near).
        mask: bool `[S, S]`, where the object is visible.
        box: x1 y1 x2 y2 in pixels around what is visible; x2 and y2 are one past the last pixel.
        hidden_by: indices of nearer objects that hide some of it.
    """

    drawing: Drawing
    nearness: float
    mask: np.ndarray
    box: tuple[int, int, int, int]
    hidden_by: tuple[int, ...]

    @property
    def name(self) -> str:
        """What the object is called."""
        return THINGS[self.drawing.thing].name

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the box's centre."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


class Scene(NamedTuple):
    """A picture and its objects, the farthest first.

    Attributes:
        image: uint8 `[S, S, 3]`.
        objects: 1 to 5.
        ground: what they are on.
        depth: float32 `[S, S]`, 0 on the ground, up to 1 for the nearest possible object.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    ground: Ground
    depth: np.ndarray


def compose(
    seed: int,
    index: int,
    side: int,
    num_objects: tuple[int, int],
    scales: tuple[float, float],
    things: int,
    held_out: bool,
) -> Scene:
    """The scene `index` of `seed`, a pure function of the arguments.

    Args:
        seed, index: of the scene.
        side: S, of the picture in pixels.
        num_objects: least and most objects; fewer where no position leaves all of them visible.
        scales: sides of the farthest and the nearest possible object over that of the picture.
        things: how many of `THINGS` occur.
        held_out: whether drawings are those that are held out of training.
    """
    draws = Draws(SCENES, seed, index)
    ground_words = draws.words(4)
    colour, pattern = (
        names[int(below(high(ground_words[i : i + 1]), len(names))[0])]
        for i, names in enumerate((tuple(COLOURS), PATTERNS))
    )
    period = side // 8 + int(below(high(ground_words[2:3]), max(side // 8, 1))[0])
    ground = Ground(colour, pattern, max(period, 4), int(below(high(ground_words[3:4]), 16)[0]))
    (least, most), (farthest, nearest) = num_objects, scales
    count = least + int(below(high(draws.words(1)), most - least + 1)[0])
    u = uniform(draws.words(count, 4 + 2 * ATTEMPTS))
    chosen: list[int] = []
    placed: list[tuple[Drawing, float, np.ndarray, np.ndarray]] = []
    for number in range(count):
        repeat = number and u[number, 0] < REPEATED
        pool = chosen if repeat else range(things)
        thing = pool[int(u[number, 1] * len(pool))]
        choices = drawings(held_out)[thing]
        drawing = choices[int(u[number, 2] * len(choices))]
        nearness = (number + u[number, 3]) / count
        scaled = _scaled(drawing, round(side * (farthest + (nearest - farthest) * nearness)))
        position = _free_position(scaled.shape, u[number, 4:], side, scaled, placed)
        if position is None:
            continue
        chosen.append(thing)
        canvas = np.zeros((side, side, 4), np.float32)
        top, left = position
        canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
        placed.append((drawing, nearness, canvas, canvas[..., 3] > 0.5))
    return _painted(ground, placed, side)


def _scaled(drawing: Drawing, longest: int) -> np.ndarray:
    """Colours and opacity, float32 `[h, w, 4]` in 0..255 and 0..1, the longer side `longest`."""
    height, width = drawing.mask.shape
    ratio = longest / max(height, width)
    size = max(round(width * ratio), 2), max(round(height * ratio), 2)
    pixels = Image.fromarray(drawing.pixels).resize(size, Image.Resampling.LANCZOS)
    opacity = Image.fromarray(drawing.mask.astype(np.uint8) * 255)
    opacity = opacity.resize(size, Image.Resampling.BOX if ratio < 1 else Image.Resampling.BILINEAR)
    layers = np.asarray(pixels, np.float32), np.asarray(opacity, np.float32)[..., None] / 255
    return np.concatenate(layers, axis=-1)


def _free_position(shape, u, side: int, scaled, placed) -> tuple[int, int] | None:
    """The first drawn position that leaves enough of every farther object in view."""
    height, width = shape[:2]
    solid = scaled[..., 3] > 0.5
    for attempt in range(ATTEMPTS):
        top = int(u[2 * attempt] * (side - height + 1))
        left = int(u[2 * attempt + 1] * (side - width + 1))
        nearer = np.zeros((side, side), bool)
        nearer[top : top + height, left : left + width] = solid
        if all(
            (mask & ~_covered(placed, number) & ~nearer).sum() >= LEAST_VISIBLE * mask.sum()
            for number, (*_, mask) in enumerate(placed)
        ):
            return top, left
    return None


def _covered(placed, number: int) -> np.ndarray:
    """Pixels that objects behind `number` in the list, which are nearer, cover."""
    return np.logical_or.reduce(
        [np.zeros_like(placed[number][3]), *(mask for *_, mask in placed[number + 1 :])]
    )


def _painted(ground: Ground, placed, side: int) -> Scene:
    """Objects painted from far to near; masks, boxes and depth of what stays visible."""
    image = ground.pixels(side).astype(np.float32)
    depth = np.zeros((side, side), np.float32)
    objects = []
    for number, (drawing, nearness, canvas, mask) in enumerate(placed):
        opacity = canvas[..., 3:]
        image = image * (1 - opacity) + canvas[..., :3] * opacity
        depth[mask] = FAR_DEPTH + (1 - FAR_DEPTH) * nearness
        visible = mask & ~_covered(placed, number)
        rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        hidden_by = tuple(
            nearer for nearer in range(number + 1, len(placed)) if (mask & placed[nearer][3]).any()
        )
        objects.append(SceneObject(drawing, nearness, visible, box, hidden_by))
    return Scene(image.round().clip(0, 255).astype(np.uint8), tuple(objects), ground, depth)
