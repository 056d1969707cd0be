"""TPU topologies by name, with their chips and the device descriptions that libtpu gives.

libtpu contains the TPU compiler and works without a TPU. Shapes are those that Google Cloud offers
(cloud.google.com/tpu/docs: the pages of each generation).
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax

from jaxformers.costs import CHIPS, Chip, chip_for, chips_in
from jaxformers.errors import ConfigError, install_extra
from jaxformers.pod.libtpu import give_compiler_stacks

# Environment that libtpu needs before it is loaded on a machine without a TPU.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_LOG_DIR": "disabled",
}
INSTALL = install_extra("tpu")
_NAME = re.compile(r"(?:(?P<slices>\d+)x)?(?P<kind>[a-z]+\d+[a-z]*):(?P<shape>\d+(?:x\d+)+)")


@dataclass(frozen=True)
class Generation:
    """Slice shapes of one TPU generation.

    Attributes:
        shapes: shapes of the slices of a 2D torus; empty for a 3D torus.
        most: number of chips of the largest slice of a 3D torus.
        wraps: length of a dimension from which its two ends are linked to a ring.
    """

    shapes: str = ""
    most: int = 0
    wraps: int = 16

    @property
    def names(self) -> list[str]:
        """All shapes, the smallest first; a 3D torus has those built of 4x4x4 cubes too."""
        if not self.most:
            return self.shapes.split()
        # Beyond one cube a 3D slice is made of whole 4x4x4 cubes: each side is a multiple of 4.
        sides = range(4, 28, 4)
        cubes = list(itertools.combinations_with_replacement(sides, 3))
        small = [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)]
        fit = sorted((c for c in cubes if math.prod(c) <= self.most), key=math.prod)
        return ["x".join(map(str, shape)) for shape in (*small, *fit)]


GENERATIONS = {
    "v2": Generation("2x2 4x4 8x8 8x16 16x16"),
    "v3": Generation("2x2 4x4 4x8 8x8 8x16 16x16 16x32 32x32", wraps=32),
    "v4": Generation(most=4096, wraps=4),
    "v5e": Generation("1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "v5p": Generation(most=6144, wraps=4),
    "v6e": Generation("1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16"),
    "tpu7x": Generation(most=9216, wraps=4),
}


@dataclass(frozen=True)
class Pod:
    """The machine that a plan is for.

    Attributes:
        name: such as `v5e:16x16` or `2xv5e:16x16`.
        devices: JAX devices of all slices.
        chip: the chip's data sheet; None if unknown.
        slices: number of slices, linked by the data-centre network.
        wraps: see `Generation`.
    """

    name: str
    devices: tuple[jax.Device, ...]
    chip: Chip | None
    slices: int = 1
    wraps: int = 0

    @property
    def chips(self) -> int:
        """Number of chips of all slices."""
        return max(1, round(chips_in(self.devices)))

    @property
    def cores(self) -> int:
        """Devices per chip: 2 on generations where each core is a device."""
        return len(self.devices) // self.chips

    @property
    def text(self) -> str:
        """The chips, devices and slices in words."""
        cores = f" of {self.cores} devices" if self.cores > 1 else ""
        slices = f" in {self.slices} slices" if self.slices > 1 else ""
        return f"{self.chips} chip{'s' * (self.chips > 1)}{cores}{slices}"


def tpu_pod(name: str, slices: int | None = None) -> Pod:
    """The pod with that topology name, as libtpu describes it.

    Args:
        name: `v5e:16x16`, or `2xv5e:16x16` for two slices.
        slices: number of slices, if the name does not state it.

    Raises:
        ConfigError: an unknown topology (the message names the nearest), or libtpu is missing.
    """
    kind, shape, slices = _parsed(name, slices)
    # A v4 chip's two cores are one device (megacore); libtpu's default describes them as two.
    options = {"chip_config_name": "megacore"} if kind == "v4" else {}
    if shape == "1x1":
        options["chips_per_host_bounds"] = [1, 1, 1]
    if slices > 1:
        options["num_slices"] = slices
    devices = _described(f"{kind}:{shape}", options)
    full = f"{slices}x{kind}:{shape}" if slices > 1 else f"{kind}:{shape}"
    return Pod(full, tuple(devices), CHIPS[kind], slices, GENERATIONS[kind].wraps)


def local_pod(
    devices: Sequence[jax.Device] | None = None, chip: str | None = None, slices: int = 1
) -> Pod:
    """The local devices as a pod: TPUs, GPUs, or CPU devices, which have no data sheet.

    Args:
        devices: the devices; None: all.
        chip: name of a data sheet to use in place of the devices' own.
        slices: number of slices to assume.
    """
    devices = tuple(jax.devices() if devices is None else devices)
    sheet = CHIPS[chip] if chip else chip_for(devices[0].device_kind)
    return Pod(f"{devices[0].device_kind} x {len(devices)}", devices, sheet, slices)


def _parsed(name: str, slices: int | None) -> tuple[str, str, int]:
    match = _NAME.fullmatch(name)
    if not match or match["kind"] not in GENERATIONS:
        raise ConfigError(f"no topology {name!r}; {_nearest(name)}")
    kind, shape = match["kind"], match["shape"]
    if shape not in GENERATIONS[kind].names:
        raise ConfigError(f"no topology {name!r}; {_nearest(name)}")
    named = int(match["slices"] or 1)
    if slices is not None and match["slices"] and slices != named:
        raise ConfigError(f"{name!r} has {named} slices, but --slices says {slices}")
    count = named if slices is None else slices
    if count < 1:
        raise ConfigError(f"{count} slices of {kind}:{shape}: it is at least 1")
    return kind, shape, count


def _nearest(name: str) -> str:
    """Suggestion for an unknown name: the nearest shapes of its generation, or all generations."""
    bare = re.sub(r"^\d+x(?=[a-z])", "", name.lower()).replace("litepod", "e")
    kind = max(
        (k for k in GENERATIONS if bare.startswith(k)),
        key=len,
        default=next(iter(difflib.get_close_matches(re.split(r"[:-]", bare)[0], GENERATIONS)), ""),
    )
    if not kind:
        return f"generations are {', '.join(GENERATIONS)}; write one as v5e:16x16"
    shapes = GENERATIONS[kind].names
    sides = [int(n) for n in re.findall(r"\d+", re.sub(r"^[a-z]+\d+[a-z]*", "", bare))]
    if sides:
        # Nearest by the ratio of the numbers of chips.
        log_chips = math.log(max(1, math.prod(sides)))
        shapes = sorted(shapes, key=lambda s: abs(math.log(_chips(s)) - log_chips))[:3]
    return f"did you mean {' or '.join(f'{kind}:{shape}' for shape in sorted(shapes, key=_chips))}?"


def _chips(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


def _described(name: str, options: dict) -> list[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(f"planning for {name} needs the TPU compiler: {INSTALL}")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    give_compiler_stacks()
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # whatever the plug-in says, in a line
        raise ConfigError(
            f"libtpu does not describe {name}: {str(error).splitlines()[0]}"
        ) from None
