"""The notebooks run in a fresh kernel within their time and hold what they claim."""

import ast
import os
import re
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")
SECONDS = 180
FOR_TESTS_ALONE = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")


def code_of(name):
    """The notebook's code cells as a program."""
    text = (FOLDER / f"{name}.md").read_text()
    return "\n".join(re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", text, flags=re.S | re.M))


def test_the_index_lists_every_notebook():
    lines = (FOLDER / "index.md").read_text().splitlines()
    assert sorted(set(lines) & set(NOTEBOOKS)) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_asserts_and_says_how_it_goes_with_published_weights(name):
    text = (FOLDER / f"{name}.md").read_text()
    opening = text[: text.index("```{code-cell}")]
    assert "**With published weights.**" in opening
    nodes = list(ast.walk(ast.parse(code_of(name))))
    assert sum(isinstance(node, ast.Assert) for node in nodes) >= 2
    assert sum("subplots" in ast.dump(n) or "figure" in ast.dump(n) for n in nodes) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_fresh_kernel_in_three_minutes(name, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = jupytext.read(FOLDER / f"{name}.md")
    environment = {key: v for key, v in os.environ.items() if key not in FOR_TESTS_ALONE}
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    start = time.perf_counter()
    client.execute(env=environment)
    assert time.perf_counter() - start < SECONDS
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
