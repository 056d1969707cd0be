"""What runs on a host: installed once, started once, its exit status kept, its signals passed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from pods import SCRIPTS, home


class Host:
    """A home folder in which the script runs as it would over ssh."""

    def __init__(self, folder: Path) -> None:
        self.home = home(folder)

    def send(self) -> None:
        """As `pod bootstrap` unpacks the code."""
        new = self.home / "jaxformers-pod/new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(SCRIPTS, new / "tpu_setup")
        (self.home / "jaxformers-pod.secret").write_text("a secret\n")

    def say(self, *words: str, folder: str = "code") -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", f"jaxformers-pod/{folder}/tpu_setup/on_host.sh", *words],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": f"{self.home}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def install(self, version: str = "abc") -> subprocess.CompletedProcess:
        self.send()
        return self.say("install", version, folder="new")

    def state(self) -> list[str]:
        """VERSION, RUN, STATE and STATUS."""
        mark, _, *fields = self.say("state").stdout.split()
        assert mark == "jaxformers-host"
        return fields

    def until(self, state: str) -> list[str]:
        for _ in range(200):
            if self.state()[2] == state:
                return self.state()
            time.sleep(0.05)
        raise AssertionError(f"never {state}: {self.state()}")


@pytest.fixture
def host(tmp_path):
    simulated = Host(tmp_path)
    yield simulated
    pid = tmp_path / "jaxformers-pod/pid"
    if pid.exists() and simulated.state()[2] == "running":
        os.kill(int(pid.read_text()), signal.SIGTERM)


def test_a_host_is_installed_run_and_says_its_status(host):
    assert host.install().returncode == 0
    assert host.state() == ["abc", "-", "idle", "-"]
    (host.home / "status").write_text("3")
    words = ["gs://b/run", "experiments/x.py", "--note", "it's $HOME; *"]
    assert host.say("start", "77", *words).returncode == 0
    assert host.until("ended") == ["abc", "77", "ended", "3"]
    arguments = (host.home / "told").read_text().splitlines()
    assert arguments == ["train", words[1], "--folder", words[0], *words[2:]]
    secret = host.home / "jaxformers-pod/secret"
    assert (host.home / "secret-file").read_text().strip() == str(secret)
    assert secret.read_text() == "a secret\n" and secret.stat().st_mode & 0o777 == 0o600
    assert not (host.home / "jaxformers-pod.secret").exists()
    assert "line of the log" in host.say("follow").stdout
    assert "gs://b/run/hosts/" in (host.home / "cloud").read_text()


def test_a_second_start_leaves_the_first_alone_and_blocks_an_install(host):
    host.install()
    (host.home / "stays").touch()
    host.say("start", "77", "gs://b/run", "x.py")
    host.until("running")
    assert "already running" in host.say("start", "78", "gs://b/run", "x.py").stdout
    assert host.state()[1] == "77"
    done = host.install("new")
    assert done.returncode == 1 and "a run is active on this host" in done.stderr
    assert host.state()[0] == "abc"


def test_sigterm_reaches_the_run_whose_status_is_kept(host):
    host.install()
    (host.home / "stays").touch()
    host.say("start", "77", "gs://b/run", "x.py")
    host.until("running")
    while not (host.home / "told").exists():
        time.sleep(0.02)
    time.sleep(0.2)  # the run sets its handler
    os.kill(int((host.home / "jaxformers-pod/pid").read_text()), signal.SIGTERM)
    assert host.until("ended")[3] == "75"


def test_a_run_that_was_killed_with_its_host_counts_as_lost(host):
    host.install()
    pod = host.home / "jaxformers-pod"
    (pod / "run").write_text("77\n")  # begun, no status, and nobody holds the lock
    assert host.state() == ["abc", "77", "ended", "137"]


def test_an_install_that_was_cut_off_is_done_again_with_the_same_environment(host):
    (host.home / "pip-status").write_text("1")
    assert host.install().returncode != 0
    assert host.state()[0] == "-"
    (host.home / "pip-status").write_text("0")
    assert host.install().returncode == 0
    assert host.state()[0] == "abc"
    assert (host.home / "venvs").read_text().count("made") == 1
    assert "-c code/constraints.txt -e code[tpu]" in (host.home / "pips").read_text()


def test_a_new_commit_forgets_how_the_old_one_ended(host):
    host.install()
    host.say("start", "77", "gs://b/run", "x.py")
    host.until("ended")
    host.install("new")
    assert host.state() == ["new", "-", "idle", "-"]
