"""The notebooks run in a fresh kernel within their time and hold what they claim."""

import ast
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from jaxformers.training.config.experiment_files import load_experiment

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "index")
SECONDS, CORES = 180, 2
CELL_SECONDS = 900  # of wall time, on a machine with other work
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


def names_of_the_cell_to_change(name):
    """What the cell for the published weights defines, as the notebook's opening shows it."""
    text = (FOLDER / f"{name}.md").read_text()
    names = {}
    exec(re.search(r"^```python\n(.*?)^```$", text, flags=re.S | re.M)[1], names)
    return names


def test_the_homework_on_pets_is_the_experiment():
    experiment = load_experiment(str(ROOT / "experiments" / "resnet" / "pets_resnet34.py"))
    data = replace(experiment.task.data, data_dir="tfds")
    expected = replace(experiment, task=replace(experiment.task, data=data))
    assert names_of_the_cell_to_change("homework_pets")["experiment"] == expected


def test_the_homework_on_flowers_is_the_experiments():
    cell = names_of_the_cell_to_change("homework_clip")
    folder = ROOT / "experiments" / "clip"
    zero_shot, linear, neighbours = (
        load_experiment(str(folder / f"flowers102_{name}.py"))
        for name in ("zero_shot", "linear_probe", "knn")
    )
    assert cell["source"] == zero_shot.task.weights
    splits = {name: replace(cell[name], data_dir=None) for name in ("train", "dev", "test")}
    for experiment in (linear, neighbours):
        (evaluator,) = experiment.evaluators
        assert {name: getattr(evaluator, name) for name in splits} == splits
    (evaluator,) = zero_shot.evaluators
    assert replace(cell["zero_shot"], test=splits["test"]) == evaluator


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_fresh_kernel_in_three_minutes_of_two_cores(name, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = jupytext.read(FOLDER / f"{name}.md")
    environment = {key: v for key, v in os.environ.items() if key not in FOR_TESTS_ALONE}
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    start = _processor_seconds_of_children()
    client.execute(env=environment)
    # Not wall time, which other work on the machine lengthens.
    assert _processor_seconds_of_children() - start < CORES * SECONDS
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def _processor_seconds_of_children() -> float:
    """Processor time of the finished child processes, such as kernels."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
