"""A pod's configuration is read, never executed; a mistake is one line and exit status 2."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from pods import GKE, SCRIPTS, VM

from jaxformers.pod.open_files import PER_HOST, RESERVED


def read(tmp_path, text: str) -> subprocess.CompletedProcess:
    file = tmp_path / "pod.conf"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, SCRIPTS / "config.py", file], capture_output=True, text=True
    )


def values(tmp_path, text: str) -> dict[str, str]:
    done = read(tmp_path, text)
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("topology", "accelerator", "hosts", "chips"),
    [
        ("v2:4x4", "v2-32", 4, 4),
        ("v3:8x8", "v3-128", 16, 4),
        ("v4:2x2x2", "v4-16", 2, 4),
        ("v5e:2x4", "v5litepod-8", 1, 8),
        ("v5e:16x16", "v5litepod-256", 64, 4),
        ("v4:4x4x12", "v4-384", 48, 4),
        ("v5p:2x2x4", "v5p-32", 4, 4),
        ("v5p:8x8x12", "v5p-1536", 192, 4),
        ("v5p:16x16x24", "v5p-12288", 1536, 4),
        ("v6e:1x1", "v6e-1", 1, 1),
        ("v6e:4x8", "v6e-32", 8, 4),
    ],
)
def test_a_topology_says_its_accelerator_type_and_hosts(
    topology, accelerator, hosts, chips, tmp_path
):
    settings = values(tmp_path, VM.replace("v5e:4x4", topology))
    assert settings["accelerator"] == accelerator
    assert (settings["hosts"], settings["chips_per_host"]) == (str(hosts), str(chips))


def test_more_hosts_than_can_be_joined_are_refused_before_anything_is_rented(tmp_path):
    pod = VM.replace("v5e:4x4", "v5p:16x16x24")
    assert values(tmp_path, pod)["hosts"] == "1536"
    refused = read(tmp_path, pod + "slices = 2\n")
    most = (4096 - RESERVED) // PER_HOST
    message = f"topology and slices: 3,072 hosts, and one run joins at most {most:,}; nothing was"
    assert refused.returncode == 2 and message in refused.stderr
    assert values(tmp_path, VM + "slices = 480\n")["slices"] == "480"  # 1,920 hosts
    assert read(tmp_path, VM + "slices = 481\n").returncode == 2


def test_gke_gets_machine_type_and_selector(tmp_path):
    settings = values(tmp_path, GKE.replace("v6e:4x4", "v5e:4x8"))
    assert settings["machine"] == "ct5lp-hightpu-4t"
    assert settings["label"] == "tpu-v5-lite-podslice"
    assert (settings["location"], settings["cluster"]) == ("us-east5", "training")


def test_arguments_are_split_as_a_shell_would_but_nothing_is_expanded(tmp_path):
    done = read(tmp_path, VM)
    words = [line.split("\t")[1] for line in done.stdout.splitlines() if "argument\t" in line]
    assert words == ["--steps", "100", "--note", "it's $HOME; rm -rf *"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('--a "x #1" --b # a comment', ["--a", "x #1", "--b"]),
        ("--a 'x # y' # it's a comment", ["--a", "x # y"]),
        ("--a x#1 --b", ["--a", "x#1", "--b"]),
        (r'--a "x \" # y" # z', ["--a", 'x " # y']),
        (r"--a \" # z", ["--a", '"']),
    ],
)
def test_a_number_sign_in_quotes_begins_no_comment(line, words, tmp_path):
    text = VM.replace('--steps 100 --note "it\'s $HOME; rm -rf *"', line)
    rows = read(tmp_path, text).stdout.splitlines()
    assert [row.split("\t")[1] for row in rows if row.startswith("argument\t")] == words


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    assert values(tmp_path, "\ufeff" + VM.lstrip())["name"] == "bert"


def test_what_can_be_asked_for_can_be_planned():
    from jaxformers.planning.topologies import GENERATIONS

    sys.path.insert(0, str(SCRIPTS))
    try:
        from config import CHIPS
    finally:
        sys.path.remove(str(SCRIPTS))
    for kind, chip in CHIPS.items():
        planned, requestable = GENERATIONS[kind].names, chip.sizes.split()
        assert set(requestable) <= set(planned), kind
        if not GENERATIONS[kind].most:
            assert requestable == planned, kind
            continue
        # Of a 3D torus one shape for each number of chips, up to the largest.
        counts = [math.prod(map(int, size.split("x"))) for size in requestable]
        every = {math.prod(map(int, size.split("x"))) for size in planned}
        assert counts == sorted(count for count in every if count <= max(counts)), kind


MISTAKES = {
    "an unknown key": (VM + "zones = a\n", "line 11: unknown key 'zones'; nearest: zone"),
    "no equals sign": (VM + "spot\n", "line 11 is not `key = value`"),
    "given twice": (VM + "spot = no\n", "line 11: spot is given twice"),
    "missing": ("name = bert\n", "missing: project, zone, topology, experiment, folder"),
    "an unknown topology": (
        VM.replace("v5e:4x4", "v5e:4x5"),
        "topology 'v5e:4x5' cannot be requested; nearest: v5e:4x8, v5e:4x4",
    ),
    "a shape that no accelerator type stands for": (
        VM.replace("v5e:4x4", "v4:4x4x24"),
        "topology 'v4:4x4x24' cannot be requested; nearest: v4:4x4x4",
    ),
    "an unknown chip": (VM.replace("v5e:4x4", "v5x:4x4"), "nearest: v5e:4x4"),
    "a name with a command": (VM.replace("bert ", "$(rm -rf .) ", 1), "name = '$(rm -rf .)'"),
    "a name that could be a slice's": (VM.replace("bert ", "bert-2 ", 1), "not ending in -NUMBER"),
    "a name that could be an option": (VM.replace("bert ", "--quiet ", 1), "name = '--quiet'"),
    "a zone that is a region": (VM.replace("us-east5-b", "us-east5"), "a zone such as"),
    "a folder that climbs": (VM.replace("runs/bert", "../other"), "a folder in a bucket"),
    "a bucket's root": (VM.replace("/runs/bert", ""), "a folder in a bucket"),
    "an experiment elsewhere": (VM.replace("experiments/x.py", "../x.py"), "in the repository"),
    "slices that are no number": (VM + "slices = two\n", "a number from 1 to 999"),
    "spot that is not yes or no": (VM.replace("= yes", "= true"), "write yes or no"),
    "an open quote": (VM.replace('*"', "*"), "No closing quotation"),
    "a control character": (VM.replace("--steps", "\x1b[2J"), "quoted as in a shell"),
    "a cluster without an image": (GKE.replace("image ", "# image"), "go together"),
    "a wait on GKE": (GKE + "wait = 6h\n", "GKE has no queue"),
    "v3 on GKE": (GKE.replace("v6e:4x4", "v3:4x4"), "on GKE take v4, v5e, v5p or v6e"),
    "slices of one host on GKE": (GKE.replace("v6e:4x4", "v6e:2x4"), "v6e:2x4 has one host"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_and_what(mistake, tmp_path):
    text, message = MISTAKES[mistake]
    done = read(tmp_path, text)
    assert done.returncode == 2 and not done.stdout
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_no_file_is_one_line():
    done = subprocess.run([sys.executable, SCRIPTS / "config.py"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "name one file" in done.stderr


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPTS / "config.py", tmp_path / "no.conf"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "cannot be read: No such file" in done.stderr and done.stderr.count("\n") == 1


def test_the_example_in_the_manual_is_valid_and_a_dozen_lines(tmp_path):
    manual = (SCRIPTS / "README.md").read_text()
    example = manual.split("```ini\n")[1].split("```")[0]
    assert len(example.splitlines()) <= 12
    assert values(tmp_path, example)["accelerator"] == "v5litepod-16"
