"""PyTorch's `.pth` files, read without unpickling them: for whoever asks by name.

Such a file is a zip of raw arrays and a pickle that describes them. The pickle's instructions are
followed here over plain containers alone: nothing is imported and nothing is called. What names
a class of its own becomes an empty mark, so that options stored beside weights do no harm.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy

from jaxformers.errors import WeightsError
from jaxformers.pretrained.mapping.transforms import Shape

TYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
WITHIN = ("model", "state_dict")  # where training scripts put the weights
PICKLE_BYTES = 64 << 20
DAMAGED = (zipfile.BadZipFile, StopIteration, OSError, ValueError, LookupError, TypeError)
DAMAGED += (AttributeError, OverflowError)
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MARK = object()


class Name(NamedTuple):
    """A class or function that the file names; never looked up."""

    module: str
    name: str


class Mark:
    """What would have been made by calling something: nothing."""


class Lazy(NamedTuple):
    """A tensor: which raw array, and how it lies in it."""

    key: str
    kind: np.dtype | str
    """What its numbers are; a name: what we do not read."""
    numbers: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]


class TorchFile:
    """The tensors of a `.pth` file: shapes now, values when asked.

    Raises:
        WeightsError: no file of `torch.save` since 2020, a damaged one, or one without tensors.
    """

    def __init__(self, path: Any):
        self.place, self._path = str(path), Path(path).expanduser()
        try:
            with zipfile.ZipFile(self._path) as archive:
                listing = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
                if archive.getinfo(listing).file_size > PICKLE_BYTES:
                    raise ValueError("its description is too long")
                contents = follow(archive.read(listing))
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
        except DAMAGED:
            raise WeightsError(
                f"{path} is damaged, or no file that torch.save has written since 2020"
            ) from None
        self._root = listing.removesuffix("data.pkl")
        self._tensors = _tensors(contents)
        self.shapes: Mapping[str, Shape] = {n: t.shape for n, t in self._tensors.items()}
        if not self.shapes:
            raise WeightsError(f"{path} holds no tensors by name")

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        lazy, where = self._tensors[name], f"{self.place}: {name}"
        if isinstance(lazy.kind, str):
            raise WeightsError(f"{where} is of the kind {lazy.kind}, which is not supported")
        last = lazy.offset + sum((n - 1) * s for n, s in zip(lazy.shape, lazy.strides, strict=True))
        beyond = last >= lazy.numbers or math.prod(lazy.shape) > lazy.numbers
        if min((0, lazy.offset, *lazy.shape, *lazy.strides)) < 0 or beyond:
            raise WeightsError(f"{where} reaches beyond its array: fetch the file again")
        with zipfile.ZipFile(self._path) as archive:
            try:
                member = archive.getinfo(f"{self._root}data/{lazy.key}")
                if member.file_size != lazy.numbers * lazy.kind.itemsize:
                    raise ValueError("another size")
                raw = np.frombuffer(archive.read(member), lazy.kind)
            except (KeyError, ValueError, zipfile.BadZipFile):
                raise WeightsError(f"{where} is damaged: fetch the file again") from None
        strides = tuple(step * lazy.kind.itemsize for step in lazy.strides)
        view = np.lib.stride_tricks.as_strided(raw[lazy.offset :], lazy.shape, strides)
        return view.astype(np.float32, order="C")


def torch_to_safetensors(source: Any, target: Any) -> None:
    """Writes the tensors of a `.pth` file as `.safetensors`, which `from_pretrained` takes.

    Raises:
        WeightsError: as for `TorchFile`, or `target` cannot be written.
    """
    file = TorchFile(source)
    tensors = {name: file.read(name) for name in file.shapes}
    try:
        safetensors.numpy.save_file(tensors, Path(target).expanduser(), metadata={"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{target} cannot be written: {error}") from None


def _tensors(found: Any) -> dict[str, Lazy]:
    for name in WITHIN:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        return {}
    return {
        name: leaf
        for name, leaf in found.items()
        if isinstance(name, str) and isinstance(leaf, Lazy) and math.prod(leaf.shape)
    }


def follow(pickled: bytes) -> Any:
    """The containers, numbers, words and tensors that a pickle describes.

    Raises:
        ValueError: an instruction that no checkpoint needs, or none of them fits.
    """
    return _Machine().run(pickled)


class _Machine:
    """The stack and memory of a pickle's instructions."""

    def __init__(self):
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, pickled: bytes) -> Any:
        for code, value, _ in pickletools.genops(pickled):
            if code.name == "STOP":
                return self.stack.pop()
            self.step(code.name, value)
        raise ValueError("no end")

    def step(self, name: str, value: Any) -> None:
        if name in VALUES:
            self.stack.append(VALUES[name])
        elif name in ("PROTO", "FRAME"):
            return
        elif name.startswith(("BININT", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BIN")):
            self.stack.append(value)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if value is None else value] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[value])
        elif name == "GLOBAL":
            self.stack.append(Name(*value.split(" ", 1)))
        elif (step := getattr(self, f"_{name.lower()}", None)) is not None:
            step()
        else:
            raise ValueError(f"instruction {name}")

    def _mark(self):
        self.stack.append(MARK)

    def _since_mark(self) -> list:
        at = max(i for i, item in enumerate(self.stack) if item is MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _empty_dict(self):
        self.stack.append({})

    def _empty_list(self):
        self.stack.append([])

    def _empty_tuple(self):
        self.stack.append(())

    def _tuple(self):
        self.stack.append(tuple(self._since_mark()))

    def _last(self, count: int):
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def _tuple1(self):
        self.stack.append(self._last(1))

    def _tuple2(self):
        self.stack.append(self._last(2))

    def _tuple3(self):
        self.stack.append(self._last(3))

    def _append(self):
        self._fill([self.stack.pop()])

    def _appends(self):
        self._fill(self._since_mark())

    def _fill(self, values: list):
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def _setitem(self):
        self._put(list(self._last(2)))

    def _setitems(self):
        self._put(self._since_mark())

    def _put(self, flat: list):
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(flat[::2], flat[1::2], strict=True))

    def _stack_global(self):
        self.stack.append(Name(*self._last(2)))

    def _build(self):
        self.stack.pop()

    def _binpersid(self):
        _, kind, key, _, numbers = self.stack.pop()
        self.stack.append((TYPES.get(kind.name, kind.name), str(key), int(numbers)))

    def _newobj(self):
        self._reduce()

    def _reduce(self):
        name, arguments = self._last(2)
        self.stack.append(_made(name, arguments))


def _made(name: Name, arguments: tuple) -> Any:
    """What calling `name` would give, of those that tensors need; else a mark."""
    match name:
        case ("collections", "OrderedDict"):
            return {}
        case ("torch._utils", "_rebuild_tensor_v2"):
            (kind, key, numbers), offset, shape, strides = arguments[:4]
            return Lazy(key, kind, numbers, int(offset), tuple(shape), tuple(strides))
        case ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"):
            return arguments[0]
        case ("torch._utils", "_rebuild_tensor_v3"):  # kinds that have no storage of their own
            return Lazy("", arguments[6].name, 0, 0, tuple(arguments[2]), ())
        case ("torch._utils", function) if function.startswith("_rebuild_"):
            return Lazy("", function.removeprefix("_rebuild_"), 0, 0, (), ())
    return Mark()
