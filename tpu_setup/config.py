"""Reads a pod's configuration: `key = value` lines, checked and never executed.

`python3 config.py FILE` prints `key<TAB>value` lines for the other scripts, and what the topology
determines (hosts, accelerator type, machine). A mistake is one line and exit status 2. It uses the
standard library only, because it runs before anything is installed.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
import shlex
import sys
from typing import NamedTuple


class ConfigError(Exception):
    """A mistake in the file; its text is one line."""


class Key(NamedTuple):
    """The form of a value, as a pattern and in words."""

    pattern: str
    words: str
    default: str = ""
    required: bool = False


NAME = r"[a-z](?!.*-\d+$)(?!.*--)[-a-z0-9]{0,34}[a-z0-9]"
KEYS = {
    "name": Key(NAME, "2 to 36 of a-z, 0-9 and -, not ending in -NUMBER", required=True),
    "project": Key(r"[a-z][-a-z0-9]{4,28}[a-z0-9]", "a Google Cloud project id", required=True),
    "zone": Key(r"[a-z]+-[a-z]+\d+-[a-z]", "a zone such as us-east5-b", required=True),
    "topology": Key(r".+", "as in `jaxformers plan --topology`: v5e:4x4", required=True),
    "slices": Key(r"[1-9]\d{0,2}", "a number from 1 to 999", default="1"),
    "spot": Key(r"yes|no", "yes or no", default="no"),
    "wait": Key(r"[1-9]\d{0,3}[smhd]", "a time such as 90m, 6h or 2d"),
    "experiment": Key(
        r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./-]*\.py",
        "a Python file in the repository, from its root",
        required=True,
    ),
    "arguments": Key(r"[^\x00-\x1f\x7f]*", "words for `jaxformers train`, quoted as in a shell"),
    "folder": Key(
        r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9._=-]+)+",
        "a folder in a bucket such as gs://bucket/runs/bert",
        required=True,
    ),
    "service_account": Key(
        r"[a-z0-9][a-z0-9@.-]*", "an address (TPU VM) or a Kubernetes service account (GKE)"
    ),
    "cluster": Key(
        r"[a-z]+-[a-z]+\d+(-[a-z])?/[a-z][-a-z0-9]{0,38}[a-z0-9]",
        "LOCATION/CLUSTER such as us-east5/training",
    ),
    "image": Key(
        r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9._-]*)+", "a registry's path, without a tag"
    ),
}


class Chip(NamedTuple):
    """How a kind of TPU is requested, by Google's pages on TPU versions and on GKE."""

    accelerator: str  # prefix of the accelerator type
    counted: int  # what the type's number counts: chips (1) or cores, two per chip (2)
    runtime: str  # software of the TPU VM
    machine: str  # machine type on GKE, without its chips; "" if GKE is not supported
    label: str  # gke-tpu-accelerator
    sizes: str


def cubes(most: int) -> str:
    """Topologies of a 3D torus of at most `most` chips: smaller slices, then multiples of 4x4x4.

    An accelerator type states the number of chips and not their shape; the cloud gives the shape
    that is most like a cube, so of all shapes with as many chips only that one can be requested.
    """
    shapes: dict[int, tuple[int, ...]] = {}
    for shape in itertools.combinations_with_replacement(range(4, 28, 4), 3):
        chips = math.prod(shape)
        if chips <= most:
            shapes[chips] = min(shapes.get(chips, shape), shape, key=sum)
    names = ["x".join(map(str, shapes[chips])) for chips in sorted(shapes)]
    return " ".join(["2x2x1 2x2x2 2x2x4 2x4x4", *names])


# Host 0 of a run holds two connections to every other host, and machines allow a process at least
# 4,096 open files (`jaxformers/pod/open_files.py`).
MOST_HOSTS = (4096 - 256) // 2

FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"
UBUNTU = "tpu-ubuntu2204-base"
CHIPS = {
    "v2": Chip("v2", 2, UBUNTU, "", "", "2x2 4x4 8x8 8x16 16x16"),
    "v3": Chip("v3", 2, UBUNTU, "", "", "2x2 4x4 4x8 8x8 8x16 16x16 16x32 32x32"),
    "v4": Chip("v4", 2, UBUNTU, "ct4p-hightpu", "tpu-v4-podslice", cubes(2048)),
    "v5e": Chip(
        "v5litepod", 1, "v2-alpha-tpuv5-lite", "ct5lp-hightpu", "tpu-v5-lite-podslice", FLAT
    ),
    "v5p": Chip("v5p", 2, "v2-alpha-tpuv5", "ct5p-hightpu", "tpu-v5p-slice", cubes(6144)),
    "v6e": Chip("v6e", 1, "v2-alpha-tpuv6e", "ct6e-standard", "tpu-v6e-slice", FLAT),
}
TOPOLOGIES = [f"{kind}:{size}" for kind, chip in CHIPS.items() for size in chip.sizes.split()]


# Up to a `#` at the beginning or after a blank; one in quotes that are closed is passed over.
BEFORE_COMMENT = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|(?<=\S)\#|[^\#])*""")


def near(word: str, choices: list[str]) -> str:
    """`; nearest: a, b` of the choices most like `word`; empty where none is."""
    matches = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(matches)}" if matches else ""


def parse(text: str) -> dict[str, str]:
    """Parses a file into keys and values; `#` starts a comment, except in quotes."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = BEFORE_COMMENT.match(line)[0].strip()
        if not line:
            continue
        key, equals, value = map(str.strip, line.partition("="))
        if not equals:
            raise ConfigError(f"line {number} is not `key = value`: {line!r}")
        if key not in KEYS:
            raise ConfigError(f"line {number}: unknown key {key!r}{near(key, list(KEYS))}")
        if key in values:
            raise ConfigError(f"line {number}: {key} is given twice")
        check(key, value, f"line {number}: ")
        values[key] = value
    return values


def check(key: str, value: str, where: str = "") -> None:
    """Raises ConfigError unless the value has the form of its key."""
    if not re.fullmatch(KEYS[key].pattern, value):
        raise ConfigError(f"{where}{key} = {value!r}: write {KEYS[key].words}")
    if key == "topology" and value not in TOPOLOGIES:
        kind = value.partition(":")[0] + ":"
        nearest = near(value, [name for name in TOPOLOGIES if name.startswith(kind)] or TOPOLOGIES)
        raise ConfigError(f"{where}topology {value!r} cannot be requested{nearest}")


def complete(values: dict[str, str]) -> dict[str, str]:
    """The values with defaults; raises ConfigError for missing or conflicting keys."""
    missing = [key for key, rule in KEYS.items() if rule.required and not values.get(key)]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    full = {key: values.get(key, rule.default) for key, rule in KEYS.items()}
    if bool(full["cluster"]) != bool(full["image"]):
        raise ConfigError("cluster and image go together: both for GKE, neither for TPU VMs")
    if full["cluster"] and full["wait"]:
        raise ConfigError("wait is for TPU VMs: GKE has no queue; leave it out")
    return full


def geometry(full: dict[str, str]) -> dict[str, str]:
    """What the topology determines: hosts per slice, chips per host, and their types' names."""
    kind, _, size = full["topology"].partition(":")
    chip = CHIPS[kind]
    chips = math.prod(int(side) for side in size.split("x"))
    # A v5e or v6e slice of up to eight chips is one host; larger ones, and all others, have
    # four chips a host.
    per_host = chips if chip.counted == 1 and chips <= 8 else 4
    hosts = chips // per_host
    if (total := hosts * int(full["slices"])) > MOST_HOSTS:
        raise ConfigError(
            f"topology and slices: {total:,} hosts, and one run joins at most {MOST_HOSTS:,}; "
            "nothing was requested"
        )
    if full["cluster"]:
        if not chip.machine:
            raise ConfigError(f"{kind} is for TPU VMs here; on GKE take v4, v5e, v5p or v6e")
        if full["slices"] != "1" and hosts == 1:
            raise ConfigError(
                f"GKE joins slices of several hosts only; {full['topology']} has one host"
            )
    return {
        "accelerator": f"{chip.accelerator}-{chips * chip.counted}",
        "runtime": chip.runtime,
        "hosts": str(hosts),
        "chips_per_host": str(per_host),
        "size": size,
        "machine": f"{chip.machine}-{per_host}t",
        "label": chip.label,
    }


def words(full: dict[str, str]) -> list[str]:
    """The words of `arguments`, split as a shell does."""
    try:
        return shlex.split(full["arguments"])
    except ValueError as error:
        raise ConfigError(f"arguments = {full['arguments']!r}: {error}") from None


def read(path: str) -> list[tuple[str, str]]:
    """The (key, value) pairs for the scripts; raises ConfigError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(100_000)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}; tpu_setup/README.md has an example") from None
    full = complete(parse(text))
    pairs = {**full, **geometry(full)}
    pairs["location"], _, pairs["cluster"] = full["cluster"].partition("/")
    del pairs["arguments"], pairs["topology"]
    return [*pairs.items(), *(("argument", word) for word in words(full))]


def main() -> int:
    """Prints the pairs of the file on the command line; returns the exit status."""
    if len(sys.argv) != 2:
        print("config.py: name one file: python3 config.py FILE", file=sys.stderr)
        return 2
    try:
        pairs = read(sys.argv[1])
    except ConfigError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 2
    for key, value in pairs:
        print(f"{key}\t{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
