"""The house: a floor imports only from those below it, a room only from those before it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jaxformers"

# Each room may import those on an earlier line, and on its own line those before it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "regular_files", "fields", "arrays", "allocator"),
    ("sharding", "costs"),
    ("layers", "text", "pod"),
    ("models", "decoding", "data", "pretrained", "evaluation", "interpret"),
    ("tasks",),
    ("training",),
    ("runs", "planning"),
    ("api", "serve", "cli", "__init__", "__main__"),
)
HEAVY = {"torch", "tensorflow", "transformers"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    floors = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"the room {room!r} is on no floor; add it to FLOORS and to the design"
    return floors[0]


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, with dots."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    modules = (name.split(".") for name in imported(path))
    all_rooms = {room for rooms in FLOORS for room in rooms}
    return {m[1] for m in modules if m[0] == "jaxformers" and len(m) > 1 and m[1] in all_rooms}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_never_run_up_the_floors(path):
    room = room_of(path)
    for dependency in rooms_imported(path) - {room}:
        below = floor_of(dependency) < floor_of(room)
        top = floor_of(room) == floor_of(dependency) == len(FLOORS) - 1
        floor = FLOORS[floor_of(room)]
        before = dependency in floor[: floor.index(room)]
        assert below or before or top, f"{path.relative_to(PACKAGE)} ({room}) imports {dependency}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_file_needs_torch_or_tensorflow_or_unpickles_or_evaluates(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not tops & (HEAVY | {"pickle", "cloudpickle", "dill", "joblib"})
    calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    called = {f.id for f in calls if isinstance(f, ast.Name)}
    assert not called & {"eval", "exec", "compile"}
    assert not re.search(r"allow_pickle\s*=\s*True|shell\s*=\s*True", path.read_text())


def test_the_rooms_on_disk_are_all_on_a_floor():
    for path in FILES:
        floor_of(room_of(path))


def test_files_and_functions_stay_short():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 400, f"{path} has over 400 lines"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_a_room_holds_at_most_a_dozen_files_and_says_what_lives_there():
    for init in PACKAGE.rglob("__init__.py"):
        files = [path for path in init.parent.glob("*.py") if path != init]
        assert init.parent == PACKAGE or len(files) <= 12, f"{init.parent} holds {len(files)} files"
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"


def import_graph() -> dict[str, set[str]]:
    """Modules of the package -> those that they import at top level or under TYPE_CHECKING."""
    modules = {module_name(path): path for path in FILES}
    return {
        name: {module for module in imported(path) if module in modules and module != name}
        - {parent for parent in modules if name.startswith(f"{parent}.")}
        for name, path in modules.items()
    }


def module_name(path: Path) -> str:
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def test_no_imports_run_in_a_circle():
    graph = import_graph()
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]), pytrace=False)


def test_no_two_test_files_share_a_name():
    # pytest imports them by their bare names, helpers included.
    files = [f for f in Path(__file__).parent.rglob("*.py") if f.name != "conftest.py"]
    names = Counter(f.name for f in files)
    assert [f for f in files if names[f.name] > 1] == []
