"""PyTorch's `.pth` files and TorchScript archives, read without unpickling, to be converted.

Such a file is a zip of raw arrays and a pickle that describes them. The pickle's instructions are
interpreted here over plain containers alone: nothing is imported and nothing is called. An object
of a class is only a record of its attributes, and code in a TorchScript archive is never read.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.formats.weight_sets import (
    choose_set,
    names_by_wrappers,
    several_sets,
    state_dicts,
)
from jaxformers.pretrained.formats.zip_members import DAMAGED, UNPACKED_BYTES, ZipMembers
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
PICKLE_BYTES, INSTRUCTIONS = 64 << 20, 2_000_000
DIMENSIONS, LARGEST = 32, 1 << 62
DEPTH, ATTRIBUTES = 64, 200_000
"""Levels of submodules, and attributes of all of them, that a TorchScript module may have."""
FLOAT32_RATIO = 16
"""Float32 bytes of all tensors for each byte of the file; more only if they share their arrays."""
CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
}
PUSHED = ("BININT", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BIN")
"""Beginnings of the names of instructions whose argument is a value."""


class Name(NamedTuple):
    """A class or function that the pickle names; never looked up."""

    module: str
    name: str


class Record:
    """An object of a class of the file's own: the attributes that BUILD gave it."""

    def __init__(self):
        self.attributes: dict[Any, Any] = {}


class TensorEntry(NamedTuple):
    """A tensor: which raw array it is of, and how it lies in it."""

    key: str
    dtype: np.dtype | str
    """The type of its numbers; a name where that is not supported."""
    length: int
    """Numbers in the raw array."""
    offset: int
    shape: Shape
    strides: tuple[int, ...]


class TorchFile:
    """The tensors of a `.pth` file or a TorchScript archive: shapes now, values when asked.

    Raises:
        WeightsError: no file of `torch.save` or `torch.jit.save` since 2020, a damaged one, one
            without tensors, or one of several sets of weights without a choice.
    """

    def __init__(self, path: Any, weights: str | None = None):
        self._members = ZipMembers(path, "file of torch.save since 2020")
        self.place = self._members.place
        listing = next((n for n in self._members.sizes if n.endswith("/data.pkl")), "")
        if self._members.sizes.get(listing, 0) > PICKLE_BYTES:
            raise WeightsError(f"{path}: its description is longer than {PICKLE_BYTES:,} bytes")
        try:
            if not listing:
                raise ValueError("no data.pkl")
            sets = _tensors(follow(self._members.read(listing)))
        except DAMAGED as error:
            raise self._members.damaged(error) from None
        self._tensors = _one_set(sets, weights, self.place)
        self._root = listing.removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in self._members.sizes and self._members.read(order) != b"little":
            raise WeightsError(f"{path} is of a big-endian machine, which is not supported")
        self.shapes: Mapping[str, Shape] = {n: t.shape for n, t in self._tensors.items()}
        if not self.shapes:
            raise WeightsError(f"{path} holds no tensors by name")
        size = 4 * sum(map(math.prod, self.shapes.values()))
        if size > max(UNPACKED_BYTES, FLOAT32_RATIO * self._members.length):
            raise WeightsError(f"{path}: its tensors are {size:,} bytes, far more than the file")

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32.

        Raises:
            WeightsError: a type that is not supported, or a damaged array.
        """
        entry, where = self._tensors[name], f"{self.place}: {printable(name)}"
        if isinstance(entry.dtype, str):
            raise WeightsError(
                f"{where} is of the kind {printable(entry.dtype)}, which is not supported"
            )
        steps = zip(entry.shape, entry.strides, strict=True)
        last = entry.offset + sum((side - 1) * stride for side, stride in steps)
        if last >= entry.length or math.prod(entry.shape) > entry.length:
            raise WeightsError(f"{where} reaches beyond its array: fetch the file again")
        member = f"{self._root}data/{entry.key}"
        if self._members.sizes.get(member) != entry.length * entry.dtype.itemsize:
            raise WeightsError(f"{where} is damaged: its array is missing or of another size")
        raw = np.frombuffer(self._members.read(member), entry.dtype)
        strides = tuple(stride * entry.dtype.itemsize for stride in entry.strides)
        view = np.lib.stride_tricks.as_strided(raw[entry.offset :], entry.shape, strides)
        return view.astype(np.float32, order="C")


def torch_to_safetensors(source: Any, target: Any, weights: str | None = None) -> None:
    """Writes the tensors of a `.pth` file as `.safetensors`, which `from_pretrained` takes.

    A TorchScript archive (`torch.jit.save`) gives the tensors of its module by dotted names, as
    `state_dict` would. Numbers become float32.

    Args:
        source: the `.pth` file.
        target: the `.safetensors` file.
        weights: which of several sets of weights in a training run's checkpoint: a key of the
            checkpoint or a prefix of names, such as "model_ema", "teacher" or "model"; None: the
            checkpoint holds one.

    Raises:
        WeightsError: as for `TorchFile`, or `target` cannot be written.
    """
    file = TorchFile(source, weights)
    tensors = {name: file.read(name) for name in file.shapes}
    try:
        safetensors.numpy.save_file(tensors, Path(target).expanduser(), metadata={"format": "pt"})
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{target} cannot be written: {error}") from None


def _tensors(contents: Any) -> dict[str, dict[str, TensorEntry]]:
    """Tensors by name of each `state_dict` in a checkpoint, or of a module, where there are any."""
    if isinstance(contents, Record):
        dicts = {"": dict(_attributes(contents))}
    else:
        dicts = state_dicts(contents)
    sets = {
        label: {
            name: value
            for name, value in entries.items()
            if isinstance(name, str) and isinstance(value, TensorEntry) and math.prod(value.shape)
        }
        for label, entries in dicts.items()
    }
    return {label: tensors for label, tensors in sets.items() if tensors}


def _one_set(
    sets: Mapping[str, dict[str, TensorEntry]], weights: str | None, place: str
) -> dict[str, TensorEntry]:
    """The one of the `sets` of a checkpoint that `weights` means, or the names with that prefix.

    Raises:
        WeightsError: several sets and no choice, or none of that name.
    """
    if weights is None:
        if len(sets) > 1:
            raise several_sets(list(sets), place)
        return next(iter(sets.values()), {})
    if any(weights == label or weights in label.split(".") for label in sets):
        return sets[choose_set(list(sets), weights, place)]
    tensors = {
        f"{label}.{name}".removeprefix("."): entry
        for label, entries in sets.items()
        for name, entry in entries.items()
    }
    names = names_by_wrappers(tensors, place)
    chosen = names[choose_set(list(names), weights, place)]
    return {plain: tensors[name] for plain, name in chosen.items()}


def _attributes(module: Record) -> Iterator[tuple[str, TensorEntry]]:
    """The tensors of a TorchScript module and its submodules by dotted names.

    Raises:
        ValueError: more levels or attributes than a model has, as where a module is its own part.
    """
    pending, count = [((), module)], 0
    while pending:
        path, record = pending.pop()
        count += len(record.attributes)
        if len(path) > DEPTH or count > ATTRIBUTES:
            raise ValueError("modules without end")
        for name, value in record.attributes.items():
            if isinstance(value, TensorEntry):
                yield ".".join((*path, str(name))), value
            elif isinstance(value, Record):
                pending.append(((*path, str(name)), value))


def follow(pickled: bytes) -> Any:
    """The containers, numbers, words and tensors that a pickle describes.

    Raises:
        ValueError: an instruction that no checkpoint needs, or too many; other errors of
            `zip_members.DAMAGED` where the instructions do not fit one another.
    """
    return _Machine().run(pickled)


class _Machine:
    """The stack and memory of a pickle's instructions."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        """Heights of the stack at the marks that are open."""
        self.memory: dict[int, Any] = {}
        self.steps: dict[str, Callable[[], Any]] = {
            "MARK": lambda: self.marks.append(len(self.stack)),
            "EMPTY_DICT": lambda: self.stack.append({}),
            "EMPTY_LIST": lambda: self.stack.append([]),
            "TUPLE": lambda: self.stack.append(tuple(self.pop_to_mark())),
            "TUPLE1": lambda: self.stack.append(self.pop_last(1)),
            "TUPLE2": lambda: self.stack.append(self.pop_last(2)),
            "TUPLE3": lambda: self.stack.append(self.pop_last(3)),
            "APPEND": lambda: self.extend(self.pop_last(1)),
            "APPENDS": lambda: self.extend(self.pop_to_mark()),
            "SETITEM": lambda: self.set_items(self.pop_last(2)),
            "SETITEMS": lambda: self.set_items(self.pop_to_mark()),
            "STACK_GLOBAL": lambda: self.stack.append(Name(*self.pop_last(2))),
            "BUILD": self.build,
            "BINPERSID": self.load_storage,
            "NEWOBJ": self.call,
            "REDUCE": self.call,
        }

    def run(self, pickled: bytes) -> Any:
        for number, (code, argument, _) in enumerate(pickletools.genops(pickled)):
            if code.name == "STOP":
                return self.stack.pop()
            if number > INSTRUCTIONS:
                raise ValueError("too many instructions")
            self.step(code.name, argument)
        raise ValueError("no end")

    def step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in ("PROTO", "FRAME"):
            return
        elif name.startswith(PUSHED):
            self.stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memory[argument])
        elif name == "GLOBAL":
            self.stack.append(Name(*argument.split(" ", 1)))
        elif name in self.steps:
            self.steps[name]()
        else:
            raise ValueError(f"instruction {name}")

    def pop_to_mark(self) -> list[Any]:
        height = self.marks.pop()
        items = self.stack[height:]
        del self.stack[height:]
        return items

    def pop_last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise ValueError("an empty stack")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def extend(self, values: list[Any] | tuple[Any, ...]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        """Sets keys and values in turn; only words are names of tensors, other keys are dropped."""
        if isinstance(target := self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            target.update((key, value) for key, value in pairs if isinstance(key, str))

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record) and isinstance(state, dict):
            self.stack[-1].attributes = state

    def load_storage(self) -> None:
        _, kind, key, _, length = self.stack.pop()
        self.stack.append((TYPES.get(kind.name, kind.name), key, length))

    def call(self) -> None:
        name, arguments = self.pop_last(2)
        self.stack.append(_result(name, arguments))


def _result(name: Name, arguments: tuple) -> Any:
    """What calling `name` would return, where tensors need it; else an empty record."""
    match name:
        case ("collections", "OrderedDict"):
            return {}
        case ("torch._utils", "_rebuild_tensor_v2"):
            (dtype, key, length), offset, shape, strides = arguments[:4]
            return _entry(TensorEntry(key, dtype, length, offset, tuple(shape), tuple(strides)))
        case ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"):
            return arguments[0]
        case ("torch._utils", "_rebuild_tensor_v3"):  # kinds that have no storage of their own
            shape = tuple(arguments[2])
            return _entry(TensorEntry("", str(arguments[6].name), 0, 0, shape, shape))
        case ("torch._utils", function) if function.startswith("_rebuild_"):
            return TensorEntry("", function.removeprefix("_rebuild_"), 0, 0, (), ())
    return Record()


def _entry(entry: TensorEntry) -> TensorEntry:
    """The entry; raises ValueError for fields of the wrong type or length, or out of range."""
    numbers = (entry.length, entry.offset, *entry.shape, *entry.strides)
    if any(type(number) is not int or not 0 <= number < LARGEST for number in numbers):
        raise ValueError("sizes that are no numbers")
    if len(entry.shape) != len(entry.strides) or len(entry.shape) > DIMENSIONS:
        raise ValueError("strides of another number of dimensions than the shape")
    if type(entry.key) is not str or not isinstance(entry.dtype, np.dtype | str):
        raise ValueError("an array without name or type")
    return entry
