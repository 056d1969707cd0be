"""Accelerator chips by their makers' data sheets, for MFU and for plans.

All values are per *chip*. A JAX device need not be one: each of the two TensorCores of TPU v2, v3
and 7x is a device, so two devices share the chip's values (`Chip.devices`).

Sources. TPUs: cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e,tpu7x}, "key specifications". Link
rates, one way: the published two-way rate of a chip / (2 x links); for v3 and v4, where no such
rate is published, the pod's bisection bandwidth over the links cut (v3: 6.4 TB/s over 2 x 32); v2:
496 Gbit/s (Jouppi et al. 2020, "A domain-specific supercomputer for training deep neural
networks"). Rates between slices: the published rate of a chip (v5p: 50 Gbit/s) or of a
pod over its 256 chips.
GPUs: NVIDIA's data sheets of A100, H100 and H200, dense (half of the printed "with sparsity").
What no source gives is None, or absent from the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import jax

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One accelerator chip.

    Attributes:
        name: short name, as in topologies (`v5e`) or on the data sheet (`H100 SXM`).
        peak_bf16: peak bfloat16 matrix FLOP/s, float32 accumulation, no sparsity.
        peak_fp32: peak float32 FLOP/s outside the matrix units, None where not published.
        memory: bytes of high-bandwidth memory.
        bandwidth: bytes/s of that memory.
        links: direct links to other chips (TPU: 4 in a 2D torus, 6 in a 3D one; GPU: NVLink).
        link: bytes/s of one link in one direction, None where not published.
        cores: TensorCores a chip (TPU); 1 for a GPU.
        devices: JAX devices a chip.
        between: bytes/s of a chip to other slices (data-centre network), None where not published.
    """

    name: str
    peak_bf16: float
    peak_fp32: float | None
    memory: float
    bandwidth: float
    links: int
    link: float | None
    cores: int = 1
    devices: int = 1
    between: float | None = None


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        # v2: memory bandwidth as JAX states it (its pallas `tpu_info`).
        Chip("v2", 46e12, None, 16e9, 716e9, 4, 62e9, cores=2, devices=2),
        Chip("v3", 123e12, None, 32 * GIB, 900e9, 4, 100e9, cores=2, devices=2),
        # v4 and v5p run their two cores as one device ("megacore") unless told otherwise.
        Chip("v4", 275e12, None, 32 * GIB, 1200e9, 6, 50e9, cores=2),
        Chip("v5e", 197e12, None, 16e9, 819e9, 4, 50e9, between=3.125e9),
        Chip("v5p", 459e12, None, 95e9, 2765e9, 6, 100e9, cores=2, between=6.25e9),
        Chip("v6e", 918e12, None, 32e9, 1638e9, 4, 100e9, between=12.5e9),
        Chip("tpu7x", 2307e12, None, 192 * GIB, 7380e9, 6, 100e9, cores=2, devices=2),
        Chip("A100 SXM 40GB", 312e12, 19.5e12, 40e9, 1555e9, 12, 25e9),
        Chip("A100 SXM 80GB", 312e12, 19.5e12, 80e9, 2039e9, 12, 25e9),
        # The PCIe cards have NVLink only where a bridge joins two of them.
        Chip("A100 PCIe 40GB", 312e12, 19.5e12, 40e9, 1555e9, 0, None),
        Chip("A100 PCIe 80GB", 312e12, 19.5e12, 80e9, 1935e9, 0, None),
        Chip("H100 PCIe", 756.5e12, 51e12, 80e9, 2000e9, 0, None),
        Chip("H100 SXM", 989.5e12, 67e12, 80e9, 3350e9, 18, 25e9),
        Chip("H200 SXM", 989.5e12, 67e12, 141e9, 4800e9, 18, 25e9),
    )
}

KINDS: dict[str, str] = {
    "TPU v2": "v2",
    "TPU v3": "v3",
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "NVIDIA A100-SXM4-40GB": "A100 SXM 40GB",
    "NVIDIA A100-SXM4-80GB": "A100 SXM 80GB",
    "NVIDIA A100-PCIE-40GB": "A100 PCIe 40GB",
    "NVIDIA A100 80GB PCIe": "A100 PCIe 80GB",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H200": "H200 SXM",
}


def chip_for(device_kind: str) -> Chip | None:
    """The chip of a JAX `device_kind`, None for a CPU and for unknown kinds.

    The full string is compared: `NVIDIA H100 NVL` or a partition (`... MIG 1g.10gb`) differs from
    the card whose name it begins with.
    """
    name = KINDS.get(device_kind.strip())
    return None if name is None else CHIPS[name]


def chips_in(devices: Iterable[jax.Device]) -> float:
    """Number of chips of JAX devices; a CPU or unknown device counts as one."""
    return sum(_chips_per_device(device) for device in devices)


def peak_flops(devices: Iterable[jax.Device]) -> float | None:
    """Peak bfloat16 FLOP/s of all devices together, None if any device's chip is unknown."""
    total = 0.0
    for device in devices:
        chip = chip_for(device.device_kind)
        if chip is None:
            return None
        total += chip.peak_bf16 * _chips_per_device(device)
    return total


def _chips_per_device(device: jax.Device) -> float:
    """The fraction of a chip that a device is."""
    chip = chip_for(device.device_kind)
    if chip is None or chip.cores == 1:
        return 1.0
    # TPU devices have `num_cores`: 2 for a v4 chip as one device ("megacore"), 1 for one of its
    # cores. Without it, the chip's usual number of devices decides.
    cores = getattr(device, "num_cores", None)
    return cores / chip.cores if cores else 1 / chip.devices
