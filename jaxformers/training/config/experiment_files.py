"""Experiment files (Python) and saved experiments (tagged JSON).

A dataclass is saved as an object whose `$type` names its class as "module:Class" and whose other
keys are its fields; tuples become lists. Nothing is pickled, and reading executes nothing: accepted
are dataclasses of this package, of a loaded experiment file, or of the caller's `registry`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import json
import math
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import typeguard

from jaxformers.errors import ConfigError, UserError

if TYPE_CHECKING:
    from jaxformers.training.experiment import Experiment

TAG = "$type"
FLOAT = "$float"
FILE_MODULE = "jaxformers_experiment_"
_ALL = typeguard.CollectionCheckStrategy.ALL_ITEMS


def to_json(obj: Any) -> Any:
    """`obj` as JSON values: dataclasses, tuples, numbers, strings, booleans and None, nested.

    Raises:
        ConfigError: a value that is none of these (a function, an array), named by its path.
    """
    return _encode(obj, type(obj).__name__)


def from_json(data: Any, registry: Iterable[type] = ()) -> Any:
    """The object that `to_json` encoded; a missing field takes its default.

    Args:
        data: what `json.load` returned.
        registry: further dataclasses to accept, such as those of a notebook.

    Raises:
        ConfigError: a class that may not be named, an unknown or missing field, a wrong type.
    """
    return _decode(data, {_tag(cls): cls for cls in registry}, "the configuration")


def digest(obj: Any) -> str:
    """SHA-256 of `obj`'s canonical JSON in hexadecimal; equal objects have equal digests."""
    text = json.dumps(to_json(obj), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _tag(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _encode(value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (f.name for f in dataclasses.fields(value) if f.init)
        encoded = {name: _encode(getattr(value, name), f"{where}.{name}") for name in fields}
        return {TAG: _tag(type(value)), **encoded}
    if type(value) is tuple:
        return [_encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value) is float and not math.isfinite(value):
        return {FLOAT: repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ConfigError(
        f"{where} holds a {type(value).__name__}, which a run cannot keep; use numbers, strings, "
        "booleans, tuples, None and frozen dataclasses"
    )


def _decode(data: Any, registry: dict[str, type], where: str) -> Any:
    if isinstance(data, list):
        return tuple(_decode(item, registry, f"{where}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if set(data) == {FLOAT} and data[FLOAT] in ("inf", "-inf", "nan"):
        return float(data[FLOAT])
    if not isinstance(data.get(TAG), str):
        raise ConfigError(f"{where} has an object without {TAG!r}, so it is no configuration")
    return _decode_dataclass(data, registry, where)


def _decode_dataclass(data: dict, registry: dict[str, type], where: str) -> Any:
    cls = _class_of(data[TAG], registry, where)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    unknown = [name for name in data if name != TAG and name not in fields]
    missing = [name for name, f in fields.items() if name not in data and not _has_default(f)]
    if unknown or missing:
        faults = [
            f"{kind} {', '.join(names)}"
            for kind, names in (("unknown fields:", unknown), ("missing fields:", missing))
            if names
        ]
        raise ConfigError(f"{where} ({cls.__name__}) has {'; '.join(faults)}")
    names = [name for name in fields if name in data]
    values = {name: _decode(data[name], registry, f"{where}.{name}") for name in names}
    _check_types(cls, values, where)
    try:
        return cls(**values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where} ({cls.__name__}): {error}") from error


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _check_types(cls: type, values: dict[str, Any], where: str) -> None:
    try:
        hints = typing.get_type_hints(cls)
    except NameError:  # a hint that only a type checker imports
        return
    for name, value in values.items():
        try:
            typeguard.check_type(value, hints[name], collection_check_strategy=_ALL)
        except typeguard.TypeCheckError as error:
            raise ConfigError(f"{where}.{name}: {value!r} {_first_line(error)}") from error


def _class_of(tag: str, registry: dict[str, type], where: str) -> type:
    module, _, name = tag.partition(":")
    if tag in registry:
        cls = registry[tag]
    elif re.fullmatch(r"jaxformers(\.\w+)*", module):
        try:
            cls = vars(importlib.import_module(module)).get(name)
        except ImportError as error:
            raise ConfigError(f"{where} names {tag!r}, which this version lacks") from error
    else:
        cls = _loaded_classes().get(tag)
    # The tag must be the class's own: modules also hold classes that they import from elsewhere.
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and _tag(cls) == tag):
        raise ConfigError(f"{where} names {tag!r}, {_why_not(module)}")
    return cls


def _loaded_classes() -> dict[str, type]:
    """Dataclasses that the loaded experiment files, or the running script, define or import."""
    modules = [m for n, m in list(sys.modules.items()) if n.startswith(FILE_MODULE)]
    modules.append(sys.modules["__main__"])
    values = (value for module in modules for value in list(vars(module).values()))
    return {_tag(v): v for v in values if isinstance(v, type) and dataclasses.is_dataclass(v)}


def _why_not(module: str) -> str:
    if module.startswith(FILE_MODULE):
        stem = module.removeprefix(FILE_MODULE)
        return f"a class of the experiment file {stem}.py; load that file first (--file {stem}.py)"
    return "which is no configuration of jaxformers or of a loaded experiment file"


def load_experiment(path: str | Path) -> Experiment:
    """The `Experiment` that the file's `experiment()` returns without arguments.

    Raises:
        ConfigError: no such file (with near misses), a file that does not run (with its line), no
            `experiment()`, or one that returns something else.
    """
    return call_experiment(load_function(path), path)


def load_function(path: str | Path) -> Callable[..., Any]:
    """The function `experiment` of an experiment file.

    Raises:
        ConfigError: no such file, one that does not run, or without that function.
    """
    function = getattr(load_module(path), "experiment", None)
    if not callable(function):
        raise ConfigError(f"{path} defines no experiment(); add one that returns an Experiment")
    return function


def call_experiment(function: Callable[..., Any], path: str | Path, **values: Any) -> Experiment:
    """The `Experiment` that a file's `experiment` returns for these values of its parameters.

    Raises:
        ConfigError: it raises (with its line), or returns something else.
    """
    try:
        with _errors_with_line(path):
            experiment = function(**values)
    except ConfigError as error:
        # A mistake in the values is the user's, and no line of the file is at fault.
        if values and isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    from jaxformers.training.experiment import Experiment

    if not isinstance(experiment, Experiment):
        kind = _article(type(experiment).__name__)
        raise ConfigError(f"{path}: experiment() returned {kind}, not an Experiment")
    return experiment


def load_grid(path: str | Path) -> dict[str, tuple[Any, ...]]:
    """What the file's `grid()` returns: the values to try by the paths of fields; {} without one.

    Raises:
        ConfigError: no such file, one that does not run, or a `grid()` that returns something else.
    """
    function = getattr(load_module(path), "grid", None)
    if function is None:
        return {}
    with _errors_with_line(path):
        grid = dict(function())
        return {str(field): tuple(values) for field, values in grid.items()}


def load_module(path: str | Path) -> ModuleType:
    """An experiment file as a module, so that its own classes may be named in a run's JSON.

    Raises:
        ConfigError: no such file, or one that does not run, with its line.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        what = "experiment file" if path.suffix == ".py" else "experiment file or run"
        raise ConfigError(f"no {what} {str(path)!r}{_near_miss(path)}")
    name = FILE_MODULE + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # as for a script: it may import its neighbours
    try:
        with _errors_with_line(path):
            spec.loader.exec_module(module)
    except ConfigError:
        del sys.modules[name]
        raise
    finally:
        sys.path.pop(0)
    return module


@contextlib.contextmanager
def _errors_with_line(path: str | Path) -> Iterator[None]:
    """Turns an exception of an experiment file into one line with file and line number."""
    try:
        yield
    except SyntaxError as error:
        location = _as_typed(error.filename, path) if error.filename else str(path)
        raise ConfigError(f"{location}:{error.lineno}: syntax error: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if _as_typed(f.filename, path) == str(path)]
        location = f"{path}:{lines[-1]}" if lines else str(path)
        what = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        raise ConfigError(f"{location}: {what}{_first_line(error)}") from error


def _as_typed(filename: str, path: str | Path) -> str:
    """The file's name as the user wrote it."""
    return str(path) if Path(filename).resolve() == Path(path).resolve() else filename


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _article(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def experiments_folder() -> Path:
    """`experiments/` of the checkout, or its copy in an installed wheel."""
    package = Path(__file__).resolve().parents[2]
    bundled = package / "experiments"
    return bundled if bundled.is_dir() else package.parent / "experiments"


def _near_miss(path: Path) -> str:
    experiments = {str(p): p.stem for p in sorted(Path("experiments").glob("**/*.py"))}
    if path.is_dir():
        inside = [str(p) for p in sorted(path.glob("*.py"))][:3]
        return f": it is a folder; did you mean {' or '.join(inside)}?" if inside else ": a folder"
    close = difflib.get_close_matches(str(path), experiments, n=2, cutoff=0.75)
    close = close or [p for p, stem in experiments.items() if stem == path.stem]
    close = close or [
        p for p, stem in experiments.items() if difflib.get_close_matches(path.stem, [stem])
    ]
    if close:
        return f"; did you mean {' or '.join(close[:2])}?"
    more = f" and {len(experiments) - 3} more in experiments/" if len(experiments) > 3 else ""
    return f"; there are {', '.join(list(experiments)[:3])}{more}" if experiments else ""
