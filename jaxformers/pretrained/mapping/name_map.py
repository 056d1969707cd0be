"""One reversible, declarative name map for every format of published weights.

A format is a tuple of `Entry`: the name of a tensor in the file, the path of our variable, and the
transform between the two. Reading and writing, and every complaint, are derived from it. A name
with `{layer}` stands for one tensor a layer; ours, in a stack, are one array `[layers, ...]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.mapping.transforms import Same, Shape, Transform

LAYER = "{layer}"
SHOWN = 5


class TensorSource(Protocol):
    """Where tensors come from: what it is called, their shapes, and one of them as float32."""

    place: str
    shapes: Mapping[str, Shape]

    def read(self, name: str) -> np.ndarray:
        """The tensor of that name, float32."""
        ...


@dataclass(frozen=True)
class Entry:
    """One tensor of the file, or one a layer, and the variable or variables that it makes."""

    names: str | tuple[str, ...]
    """Its name; further names are other views of the same tensor, which may stand in its place."""
    paths: str | tuple[str, ...]
    """Paths from the collection on, such as `params/encoder/blocks/feed_forward/up/bias`."""
    transform: Transform = Same()
    default: float | None = None
    """What fills the variable when the file lacks the tensor; None: the file must have it."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """The names, canonical first."""
        return (self.names,) if isinstance(self.names, str) else self.names

    @property
    def targets(self) -> tuple[str, ...]:
        """The paths of our variables, always as a tuple."""
        return (self.paths,) if isinstance(self.paths, str) else self.paths

    def under(self, theirs: str, ours: str) -> Entry:
        """The entry with a prefix before its names, and one before its paths."""
        names = tuple(theirs + name for name in self.aliases)
        return replace(self, names=names, paths=tuple(ours + path for path in self.targets))


class Slot(NamedTuple):
    """An entry at one layer (None: an entry without layers)."""

    entry: Entry
    names: tuple[str, ...]
    layer: int | None
    shapes: tuple[Shape, ...]

    @property
    def their_shape(self) -> Shape:
        """The shape that the file must have."""
        return self.entry.transform.their_shape(*self.shapes)

    def part(self, array: np.ndarray) -> np.ndarray:
        """This layer's view of the stacked array."""
        return array[...] if self.layer is None else array[self.layer]


@dataclass(frozen=True)
class NameMap:
    """A format: its entries, and patterns (regular expressions) of tensors that carry nothing."""

    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()

    def read(self, source: TensorSource, shapes: Mapping[str, Shape]) -> dict[str, np.ndarray]:
        """Our variables of these shapes, by path, float32, made from `source`.

        Everything is checked before the first tensor is read.

        Raises:
            WeightsError: names the missing, unexpected and misshapen tensors, and tied ones that
                differ, in one line.
        """
        slots = list(self.slots(shapes))
        self._check(slots, source)
        out = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
        for slot in slots:
            for path, value in zip(slot.entry.targets, _made(slot, source), strict=True):
                slot.part(out[path])[...] = value
        return out

    def write(self, variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The file's tensors by name, made from our variables by path; tied ones once."""
        shapes = {path: np.shape(value) for path, value in variables.items()}
        out = {}
        for slot in self.slots(shapes):
            tensors = (slot.part(np.asarray(variables[path])) for path in slot.entry.targets)
            out[slot.names[0]] = np.asarray(slot.entry.transform.to_theirs(*tensors), order="C")
        return out

    def slots(self, shapes: Mapping[str, Shape]) -> Iterator[Slot]:
        """Each tensor that variables of these shapes need.

        Raises:
            WeightsError: a variable that the format has no name for.
        """
        used = [e for e in self.entries if all(path in shapes for path in e.targets)]
        covered = {path for entry in used for path in entry.targets}
        if nameless := [path for path in shapes if path not in covered]:
            raise WeightsError(f"this format has no name for {listed(nameless)}")
        for entry in used:
            yield from _slots(entry, [tuple(shapes[path]) for path in entry.targets])

    def _check(self, slots: Sequence[Slot], source: TensorSource) -> None:
        file_shapes, missing, misshapen = source.shapes, [], []
        for slot in slots:
            present = [name for name in slot.names if name in file_shapes]
            if not present and slot.entry.default is None:
                missing.append(slot.names[0])
            for name in present:
                if tuple(file_shapes[name]) != slot.their_shape:
                    misshapen.append(_misshapen(name, file_shapes[name], slot.their_shape))
        mapped_names = {name for slot in slots for name in slot.names}
        unexpected = [
            name for name in file_shapes if name not in mapped_names and not self._ignores(name)
        ]
        refuse_faults(source.place, missing, unexpected, misshapen)

    def _ignores(self, name: str) -> bool:
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


def _slots(entry: Entry, shapes: list[Shape]) -> Iterator[Slot]:
    if LAYER not in entry.aliases[0]:
        yield Slot(entry, entry.aliases, None, tuple(shapes))
        return
    layer_shapes = tuple(shape[1:] for shape in shapes)
    for layer in range(shapes[0][0]):
        yield Slot(
            entry, tuple(n.replace(LAYER, str(layer)) for n in entry.aliases), layer, layer_shapes
        )


def _made(slot: Slot, source: TensorSource) -> tuple[np.ndarray, ...]:
    """Our arrays for one slot, from the tensor or, where it may lack, from its default."""
    present = [name for name in slot.names if name in source.shapes]
    if not present:
        return tuple(np.full(shape, slot.entry.default, np.float32) for shape in slot.shapes)
    tensor = source.read(present[0])
    for spelling in present[1:]:
        if not np.array_equal(tensor, source.read(spelling)):
            raise WeightsError(
                f"{source.place}: {spelling} differs from {present[0]}, "
                "and this model has one table "
                "for both"
            )
    return slot.entry.transform.to_ours(tensor, *slot.shapes)


def refuse_faults(
    place: str, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]
) -> None:
    """Raises the one line that names them all (the first five of each, and how many), if any."""
    kinds = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
    if faults := [f"{kind} {listed(names)}" for kind, names in kinds if names]:
        raise WeightsError(f"{place} does not fit the model: {'; '.join(faults)}")


def compare(place: str, wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raises `refuse_faults`'s line unless `found` has exactly the names and shapes `wanted`."""
    refuse_faults(
        place,
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
        [
            _misshapen(name, found[name], wanted[name])
            for name in wanted
            if name in found and tuple(found[name]) != tuple(wanted[name])
        ],
    )


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + more


def _misshapen(name: str, found: Shape, wanted: Shape) -> str:
    return f"{printable(name)} {printable(list(found))} instead of {list(wanted)}"


def identity(paths: Sequence[str]) -> NameMap:
    """The map of a file whose names are our own paths."""
    return NameMap(tuple(Entry(path, path) for path in paths))


def each(entries: Callable[[str, str], Sequence[Entry]], **parts: str) -> tuple[Entry, ...]:
    """`entries(their name, our name)` for each part, given as `our_name="their_name"`."""
    return tuple(entry for ours, theirs in parts.items() for entry in entries(theirs, ours))
