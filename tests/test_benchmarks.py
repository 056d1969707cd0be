"""The benchmarks' imports resolve: they are run rarely, and by hand."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(BENCHMARKS.glob("*.py"))
SIBLINGS = {script.stem: script for script in SCRIPTS}


def defined_names(script: Path) -> set[str]:
    """Names that a script defines or imports at top level; parsed, as it may import PyTorch."""
    names: set[str] = set()
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_imported_names_exist(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        names = {alias.name for alias in node.names}
        if node.module in SIBLINGS:
            assert names <= defined_names(SIBLINGS[node.module]), node.module
        elif node.module.split(".")[0] == "jaxformers":
            module = importlib.import_module(node.module)
            for name in names:
                if not hasattr(module, name):
                    importlib.import_module(f"{node.module}.{name}")


def test_the_check_finds_a_name_that_is_gone():
    assert "our_step" in defined_names(SIBLINGS["train_step"])
    assert "flops_of" not in defined_names(SIBLINGS["train_step"])
    assert "train_step" not in sys.modules
