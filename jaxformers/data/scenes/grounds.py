"""Grounds of scenes: six pale colours, plain or with a pattern."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

COLOURS = {
    "white": (250, 250, 250),
    "gray": (190, 190, 195),
    "green": (186, 222, 184),
    "blue": (184, 208, 240),
    "pink": (244, 206, 216),
    "yellow": (246, 236, 180),
}
PATTERNS = ("plain", "striped", "checked", "dotted")
CONTRAST = 26  # grey levels between the two shades of a pattern


class Ground(NamedTuple):
    """A colour and a pattern, both by name; the pattern's `period` and `phase` in pixels."""

    colour: str
    pattern: str
    period: int
    phase: int

    @property
    def name(self) -> str:
        """`striped blue ground`; a plain one is `blue ground`."""
        return f"{self.pattern} {self.colour} ground".removeprefix("plain ")

    def pixels(self, side: int) -> np.ndarray:
        """The ground alone, uint8 `[side, side, 3]`."""
        y, x = np.indices((side, side)) + self.phase
        half = self.period // 2
        match self.pattern:
            case "striped":
                dark = (x // half) % 2 == 0
            case "checked":
                dark = (x // half + y // half) % 2 == 0
            case "dotted":
                centre = self.period // 2
                dark = (x % self.period - centre) ** 2 + (y % self.period - centre) ** 2 <= (
                    self.period / 4
                ) ** 2
            case _:
                dark = np.zeros((side, side), bool)
        colour = np.array(COLOURS[self.colour], np.int16)
        return (colour - CONTRAST * dark[..., None]).astype(np.uint8)
