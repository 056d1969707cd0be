"""The things that scenes are made of: bundled emoji cut out of their white ground."""

from __future__ import annotations

import colorsys
import hashlib
from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from jaxformers.data.captions.emoji import BundledEmoji

STYLES = ("noto", "twemoji", "fluent")
WHITE_FROM = 236  # of the darkest channel; the sheets are lossy
CLEAR_SHARE = 0.55  # of a drawing's pixels that have its colour; below, it has none
VIVID, RED_FROM, PALE = 0.45, 0.65, 0.13  # saturations: of any hue, of red, of a grey at most
DARK, LIGHT = 0.22, 0.85  # value up to which black is named, and from which white
# Hues in degrees; between them lie those that people name differently.
HUES = {
    "red": (-14, 11),
    "orange": (14, 33),
    "yellow": (40, 66),
    "green": (78, 158),
    "blue": (192, 244),
    "purple": (252, 292),
    "pink": (305, 343),
}


class Thing(NamedTuple):
    """A kind of object: what it is called, alone and as several, and the class that it is of."""

    name: str
    plural: str
    category: str


KINDS = {
    "animal": (
        ("pig", "pigs"),
        ("frog", "frogs"),
        ("penguin", "penguins"),
        ("turtle", "turtles"),
        ("crab", "crabs"),
        ("snail", "snails"),
        ("octopus", "octopuses"),
        ("butterfly", "butterflies"),
    ),
    "food": (
        ("banana", "bananas"),
        ("strawberry", "strawberries"),
        ("broccoli", "broccolis"),
        ("carrot", "carrots"),
        ("lemon", "lemons"),
        ("pineapple", "pineapples"),
        ("hamburger", "hamburgers"),
        ("pizza", "pizzas"),
    ),
    "vehicle": (
        ("taxi", "taxis"),
        ("sailboat", "sailboats"),
        ("helicopter", "helicopters"),
        ("bicycle", "bicycles"),
        ("bus", "buses"),
        ("ambulance", "ambulances"),
        ("tractor", "tractors"),
        ("rocket", "rockets"),
    ),
    "object": (
        ("umbrella", "umbrellas"),
        ("basketball", "basketballs"),
        ("backpack", "backpacks"),
        ("key", "keys"),
        ("crown", "crowns"),
        ("magnet", "magnets"),
        ("guitar", "guitars"),
        ("bell", "bells"),
    ),
}
THINGS = tuple(
    Thing(*names, category)
    for row in zip(*KINDS.values(), strict=True)
    for category, names in zip(KINDS, row, strict=True)
)
"""One of each category by turns; the first ones look most alike in all styles."""


class Drawing(NamedTuple):
    """One style's picture of a thing, cropped to what is drawn.

    Attributes:
        thing: index in `THINGS`.
        style: whose drawing it is.
        pixels: uint8 `[h, w, 3]`.
        mask: bool `[h, w]`, true where it is drawn.
        colour: what most of it is, or None where no colour covers more than half.
    """

    thing: int
    style: str
    pixels: np.ndarray
    mask: np.ndarray
    colour: str | None


@cache
def drawings(held_out: bool) -> tuple[tuple[Drawing, ...], ...]:
    """The drawings of each thing: two styles, or the third, which is held out.

    Which style that is differs from thing to thing, so that every style is trained on.
    """
    images = {
        style: BundledEmoji(styles=(style,)).open()  # in the order of `concepts`, where drawn
        for style in STYLES
    }
    numbers = {
        style: {images[style].concept(i)["name"]: i for i in range(len(images[style]))}
        for style in STYLES
    }
    return tuple(
        tuple(
            _cut_out(index, style, np.asarray(images[style].image(numbers[style][thing.name])))
            for style in STYLES
            if (style == _held_out_style(thing.name)) == held_out
        )
        for index, thing in enumerate(THINGS)
    )


def _held_out_style(name: str) -> str:
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return STYLES[int(digest, 16) % len(STYLES)]


def _cut_out(thing: int, style: str, pixels: np.ndarray) -> Drawing:
    """White that is connected to the border is ground; white within the drawing is not."""
    labels, _ = ndimage.label(np.pad(pixels.min(axis=-1) >= WHITE_FROM, 1, constant_values=True))
    mask = (labels != labels[0, 0])[1:-1, 1:-1]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Drawing(thing, style, pixels[box], mask[box], _main_colour(pixels[mask]))


def _main_colour(pixels: np.ndarray) -> str | None:
    names = Counter(_colour_name(*rgb) for rgb in (pixels / 255).tolist())
    name, count = names.most_common(1)[0]
    return name if count >= CLEAR_SHARE * len(pixels) else None


def _colour_name(red: float, green: float, blue: float) -> str | None:
    """The name of a colour that most people would agree on; None for all between."""
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    if value < DARK:
        return "black"
    if saturation < PALE:
        return "white" if value > LIGHT else None
    if saturation < VIVID or value < 0.4:
        return None
    degrees = hue * 360 if hue * 360 < 346 else hue * 360 - 360
    name = next((name for name, (low, high) in HUES.items() if low <= degrees <= high), None)
    return None if name == "red" and saturation < RED_FROM else name  # salmon
