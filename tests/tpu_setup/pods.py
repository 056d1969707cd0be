"""A repository with the launch scripts, a configuration, and stand-ins for the cloud's programs."""

from __future__ import annotations

import marshal
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SCRIPTS = HERE.parents[1] / "tpu_setup"

VM = """
name       = bert            # a comment
project    = my-project
zone       = us-east5-b
topology   = v5e:4x4
spot       = yes
wait       = 6h
experiment = experiments/x.py
arguments  = --steps 100 --note "it's $HOME; rm -rf *"
folder     = gs://my-bucket/runs/bert
"""
GKE = """
name            = bert
project         = my-project
zone            = us-east5-b
topology        = v6e:4x4
slices          = 2
experiment      = experiments/x.py
arguments       = --note "it's: [a, {b}]"
folder          = gs://my-bucket/runs/bert
cluster         = us-east5/training
image           = us-east5-docker.pkg.dev/my-project/images/jaxformers
service_account = trainer
"""


# In place of Python: `-m venv` makes a folder with `python` and `jaxformers` in it, and notes it.
PYTHON = """#!/bin/bash
if [[ $1 == -c ]]; then exit 0; fi
if [[ $2 == venv ]]; then
    mkdir -p "$3/bin" && echo made >>"$HOME/venvs"
    cp "$HOME/pip" "$3/bin/python"
    cp "$HOME/jaxformers" "$3/bin/jaxformers"
    chmod +x "$3"/bin/*
fi
"""
PIP = """#!/bin/bash
echo "$@" >>"$HOME/pips"
exit "$(cat "$HOME/pip-status")"
"""
TRAIN = """#!/bin/bash
printf '%s\\n' "$@" >"$HOME/told"
printf '%s\\n' "$JAXFORMERS_SECRET_FILE" >"$HOME/secret-file"
trap 'kill $!; exit 75' TERM
if [[ -f $HOME/stays ]]; then sleep 60 & wait; fi
echo "line of the log"
exit "$(cat "$HOME/status")"
"""


def home(folder: Path) -> Path:
    """A host's home folder, with programs that do as if in `bin`; `status` is how a run ends."""
    files = {"jaxformers": TRAIN, "pip": PIP, "status": "0", "pip-status": "0"}
    programs = {"python3.13": PYTHON, "gcloud": '#!/bin/bash\necho "$@" >>"$HOME/cloud"\n'}
    (folder / "bin").mkdir(parents=True)
    for name, text in {**files, **{f"bin/{name}": text for name, text in programs.items()}}.items():
        (folder / name).write_text(text)
    for name in programs:
        (folder / "bin" / name).chmod(0o755)
    return folder


def repository(folder: Path) -> Path:
    """A clean repository with one experiment and the scripts."""
    shutil.copytree(SCRIPTS, folder / "tpu_setup", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "experiments").mkdir()
    (folder / "experiments/x.py").write_text("")
    (folder / ".gitignore").write_text("runs/\n*.conf\n__pycache__/\n")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


def programs(folder: Path) -> Path:
    """A folder with `gcloud` and `kubectl`, which are stand-ins, and this Python as python3."""
    folder.mkdir()
    for name in ("gcloud", "kubectl"):
        program = folder / name
        program.write_text(f"#!{sys.executable} -IS\n" + (HERE / "stand_in.py").read_text())
        program.chmod(0o755)
    (folder / "python3").symlink_to(sys.executable)
    return folder


class Pod:
    """One person's cloud: `say("run")` calls the script, `live()` is what the cloud still has."""

    def __init__(self, folder: Path, repo: Path, bin: Path, config: str = VM, **orders) -> None:
        self.folder, self.repo, self.bin = folder, repo, bin
        folder.mkdir(exist_ok=True)
        self.config = folder / "pod.conf"
        self.config.write_text(config)
        world = {key: {} for key in ["requests", "nodes", "hosts", "pools", "jobsets"]}
        world |= {"images": [], "wanted": [], "now": [], "calls": 0, "step": 0, "orders": orders}
        self.change({**world, "hosts_per_node": 4})
        self.transcript: list[str] = []

    def say(self, *words: str, kill: int = 0) -> subprocess.CompletedProcess:
        """Run the script; its calls, exit status and last line go to the transcript."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            [self.repo / "tpu_setup/pod", *words, self.config],
            env={
                **os.environ,
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "STAND_IN": str(self.folder),
                "STAND_IN_KILL": str(kill),
                "POD_INTERVAL": "0",
                "TMPDIR": str(self.folder),
            },
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=60,
        )
        self.transcript.append(f"$ tpu_setup/pod {' '.join(words)}")
        if calls.exists():
            self.transcript += [
                shlex.join(line.split("\0")) for line in calls.read_text().splitlines()
            ]
        self.transcript += done.stdout.splitlines()
        self.transcript.append(f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return done

    def world(self) -> dict:
        return marshal.loads((self.folder / "world").read_bytes())

    def change(self, world: dict) -> None:
        (self.folder / "world").write_bytes(marshal.dumps(world))

    def live(self) -> set[tuple[str, str]]:
        """What exists, as the stand-in knows it."""
        kinds = {
            "requests": "queued resource",
            "nodes": "node",
            "pools": "node pool",
            "jobsets": "JobSet",
        }
        world = self.world()
        return {(kind, name) for key, kind in kinds.items() for name in world[key]}

    def listed(self) -> set[tuple[str, str]]:
        """What exists, as `status` says it."""
        done = self.say("status")
        assert done.returncode == 0, done.stderr
        rows = re.findall(
            r"^(queued resource|node pool|node|JobSet) +(\S+) .*(?:costs?|cost|holds)",
            done.stdout,
            re.MULTILINE,
        )
        return set(rows)

    def text(self) -> str:
        """The transcript without what differs from run to run."""
        text = "\n".join(self.transcript)
        text = text.replace(str(self.repo), "REPO").replace(str(self.config), "pod.conf")
        text = re.sub(rf"{re.escape(str(self.folder))}/tmp\.\w+", "SCRATCH", text)
        commit = subprocess.run(
            ["git", "-C", self.repo, "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        text = text.replace(commit, "COMMIT").replace(commit[:12], "VERSION")
        text = re.sub(r"'--command=if \[ -f .*", "'--command=STATE'", text)
        text = re.sub(r"(start|jaxformers-run\W+) ?\d{6,}", r"\1 RUN", text)
        text = re.sub(r"\d[\d.]* \w+ ago", "AGO", text)
        return text + "\n"
