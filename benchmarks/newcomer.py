"""Times a new user's first steps: from `git clone` to the first plot and the first translation.

    python benchmarks/newcomer.py --source https://HOST/REPOSITORY --json newcomer.json

Runs these steps in a new folder and prints the seconds of each: clone the repository; `make
notebooks`, which creates the environment with pip and writes the notebooks; run the first notebook
in a new kernel until a cell shows an image; `make demo`, which trains the translation model;
translate a sentence with it. Needs only Python's standard library, git, make and a package index.
With `--no-demo` it stops after the first image.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
NOTEBOOK = "attention_and_words"
SENTENCE = "Open the file."
# Runs in the new environment.
UNTIL_A_PICTURE = """
import sys, jupytext, nbclient

notebook = jupytext.read(sys.argv[1])
client = nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3")
with client.setup_kernel():
    for index, cell in enumerate(notebook.cells):
        client.execute_cell(cell, index)
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ())):
            break
    else:
        sys.exit("no cell shows a picture")
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", default=str(CHECKOUT), help="repository to clone")
    parser.add_argument("--no-demo", action="store_true", help="stop at the first picture")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Git runs in the new folder, where a relative path would point elsewhere.
        local = Path(arguments.source).exists()
        source = str(Path(arguments.source).resolve()) if local else arguments.source
        seconds = run_steps(steps(source, demo=not arguments.no_demo), Path(folder))
        conditions = {"cores": os.cpu_count(), "load": os.getloadavg()[2]}
        print(f"{sum(seconds.values()):8.1f} s  in total; {conditions}", flush=True)
        if arguments.json:
            results = {**conditions, "seconds": seconds}
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def steps(source: str, *, demo: bool) -> dict[str, list[str]]:
    """Commands by step; `clone` runs in the parent folder of the clone, the others in the clone."""
    notebook = f"build/ipynb/{NOTEBOOK}.ipynb"
    commands = {
        "clone": ["git", "clone", "--quiet", source, "clone"],
        "install, notebooks written": ["make", "notebooks"],
        "first picture in a notebook": [".venv/bin/python", "-c", UNTIL_A_PICTURE, notebook],
    }
    if demo:
        commands["train the translator"] = ["make", "demo"]
        commands["own translation"] = [".venv/bin/jaxformers", "translate", "runs/demo"]
    return commands


def run_steps(commands: dict[str, list[str]], folder: Path) -> dict[str, float]:
    """Runs the commands in order; returns their seconds, or exits with the output of a failure."""
    # The steps must not reuse the caller's environment or compilation caches.
    names = ("VIRTUAL_ENV", "PYTHONPATH", "JAX_COMPILATION_CACHE_DIR", "JAXFORMERS_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(folder / "cache")}
    seconds = {}
    for name, command in commands.items():
        start = time.perf_counter()
        process = subprocess.run(
            command,
            cwd=folder if name == "clone" else folder / "clone",
            env=environment,
            input=SENTENCE + "\n",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seconds[name] = round(time.perf_counter() - start, 1)
        print(f"{seconds[name]:8.1f} s  {name}", flush=True)
        if process.returncode:
            raise SystemExit(process.stdout[-2000:])
        if name == "own translation":
            print(f"{SENTENCE} -> {process.stdout.splitlines()[-1]}")
    return seconds


if __name__ == "__main__":
    main()
