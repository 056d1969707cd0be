"""Facts that all hosts must agree on (hashes of code and configuration, versions), compared."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
LIBRARIES = ("jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
SHOWN = 40  # longer values are compared and shown by their hash

Facts = dict[str, str]


def code_facts() -> Facts:
    """Hashes of this library's sources and of the modules of one's own; versions of others.

    Call it once the experiment is loaded: its own modules are those that it has imported.
    """
    versions = {f"code: {name}": _version(name) for name in LIBRARIES}
    return {
        "code: jaxformers": files_hash(PACKAGE.rglob("*.py"), PACKAGE),
        "code: experiment": files_hash(_own_modules()),
        "code: Python": platform.python_version(),
        **versions,
    }


def files_hash(paths: Iterable[Path], root: Path | None = None) -> str:
    """One hash of the contents of files and of their places below `root`, or of their names."""
    total = hashlib.sha256()
    for name, path in sorted((str(p.relative_to(root)) if root else p.name, p) for p in paths):
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def flat(values: Any, name: str) -> Facts:
    """The leaves of nested JSON by their paths: `config: task.model.width` and the like."""
    if isinstance(values, Mapping):
        children = {str(key): value for key, value in values.items()}
    elif isinstance(values, list):
        children = {str(i): value for i, value in enumerate(values)}
    else:
        return {name: _short(str(values))}
    join = " " if name.endswith(":") else "."
    return {
        k: v
        for key, value in children.items()
        for k, v in flat(value, f"{name}{join}{key}").items()
    }


def disagreements(facts: Mapping[int, Facts], called: Callable[[int], str]) -> list[str]:
    """What differs, a sentence each, naming the hosts that are not as most (or as host 0) are."""
    sentences = []
    for name in sorted({name for values in facts.values() for name in values}):
        values = {process: host.get(name, "none") for process, host in facts.items()}
        if len(set(values.values())) == 1:
            continue
        counts = Counter(values[process] for process in sorted(values))
        usual = counts.most_common(1)[0][0]  # of equally common ones the first, which host 0 has
        for value in dict.fromkeys(v for v in values.values() if v != usual):
            who = [called(process) for process in sorted(values) if values[process] == value]
            sentences.append(f"{name} is {value} on {listed(who)}, {usual} on the others")
    return sentences


def listed(words: list[str], most: int = 8) -> str:
    """The first words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _short(value: str) -> str:
    return value if len(value) <= SHOWN else hashlib.sha256(value.encode()).hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _own_modules() -> list[Path]:
    """Files of loaded modules that are neither Python's nor installed, nor this library's."""
    excluded = (Path(sys.prefix), Path(sys.base_prefix), Path(platform.__file__).parent, PACKAGE)
    files = {Path(f).resolve() for m in list(sys.modules.values()) if (f := _file_of(m))}
    return [file for file in files if not any(file.is_relative_to(root) for root in excluded)]


def _file_of(module: Any) -> str | None:
    file = getattr(module, "__file__", None)
    inside = file and ("site-packages" in file or "dist-packages" in file)
    own = isinstance(file, str) and file.endswith(".py") and not inside
    return file if own and Path(file).is_file() else None  # some name files that are not there
