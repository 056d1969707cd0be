"""The scripts as texts: shellcheck finds nothing, and how far a run is fits on one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pods import SCRIPTS


def test_shellcheck_finds_nothing():
    beside = Path(sys.executable).parent / "shellcheck"
    program = beside if beside.exists() else shutil.which("shellcheck")
    assert program, "shellcheck is missing: pip install -c constraints.txt -e '.[test]'"
    scripts = [SCRIPTS / "pod", *sorted(SCRIPTS.glob("*.sh"))]
    done = subprocess.run([program, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def progress(text: str, *words: str) -> str:
    command = [sys.executable, SCRIPTS / "progress.py", *words]
    return subprocess.run(command, input=text, capture_output=True, text=True).stdout


def test_progress_says_step_loss_goodput_and_who_is_silent():
    now = time.time()
    status = {"time": now - 12, "step": 1200, "steps": 5000, "loss": 2.3125, "goodput": 0.934}
    hosts = [
        {"process": 0, "host": "a", "step": 1200, "time": now - 12},
        {"process": 1, "host": "b\x1b[2J", "step": 900, "time": now - 500},
    ]
    output = progress(json.dumps({**status, "state": "running", "hosts": hosts}))
    assert output.startswith("step 1200 of 5000, loss 2.312, goodput 93 %, running, 12 s ago")
    assert output.endswith("host b[2J silent since step 900\n")
    assert progress(json.dumps({**status, "state": "running"}), "step") == "1200\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": 3}', '{"step": "x"}', "null"])
def test_a_status_file_that_is_not_whole_is_said_to_be_so(text):
    assert progress(text) == "there is no status.json yet, or it is damaged\n"
