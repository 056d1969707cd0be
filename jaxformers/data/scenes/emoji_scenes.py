"""Configuration of a set of emoji scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from jaxformers.data.scenes.composition import Scene, compose
from jaxformers.data.scenes.drawings import THINGS
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, OpenFraction, PositiveInt, Range, Seed

Side = Annotated[int, Range(ge=16, le=1024)]
NumObjects = Annotated[int, Range(ge=1, le=5)]
NumThings = Annotated[int, Range(ge=2, le=len(THINGS))]


@dataclass(frozen=True)
class EmojiScenes(CheckedFields):
    """`size` pictures of emoji on a ground; picture i is a pure function of the fields and i."""

    size: PositiveInt = 100_000
    """Scenes in the set."""
    side: Side = 64
    """Height and width of a picture, in pixels."""
    seed: Seed = 0
    least_objects: NumObjects = 1
    most_objects: NumObjects = 5
    farthest_scale: OpenFraction = 0.26
    """Longer side of the farthest possible object over that of the picture."""
    nearest_scale: OpenFraction = 0.56
    """The same of the nearest possible object."""
    things: NumThings = len(THINGS)
    """The first so many kinds of things occur."""
    held_out: bool = False
    """Whether things are drawn in the style that training never sees, and scenes are others."""

    def __post_init__(self):
        super().__post_init__()
        if self.least_objects > self.most_objects:
            raise ConfigError(
                f"EmojiScenes: least_objects is {self.least_objects}, above most_objects "
                f"{self.most_objects}"
            )
        if self.farthest_scale > self.nearest_scale:
            raise ConfigError(
                f"EmojiScenes: farthest_scale is {self.farthest_scale}, above nearest_scale "
                f"{self.nearest_scale}"
            )

    def __len__(self) -> int:
        return self.size

    def scene(self, index: int) -> Scene:
        """The picture `index` with its objects.

        Raises:
            DataError: `index` is outside the set.
        """
        if not 0 <= index < self.size:
            raise DataError(f"emoji scene {index:,} of {self.size:,} does not exist")
        return compose(
            2 * self.seed + self.held_out,
            index,
            self.side,
            (self.least_objects, self.most_objects),
            (self.farthest_scale, self.nearest_scale),
            self.things,
            self.held_out,
        )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the scenes depend on."""
        return {"source": str(self)}
