"""The table of chips and how JAX's devices map onto it."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest
from jax.experimental.pallas import tpu as pallas_tpu

from jaxformers.costs import CHIPS, chip_for, chips_in, peak_flops


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v2", "v2"),
        ("TPU v3", "v3"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA A100-SXM4-40GB", "A100 SXM 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H200", "H200 SXM"),
    ],
)
def test_device_kinds_of_jax_are_recognised(kind, name):
    assert chip_for(kind) is CHIPS[name]


@pytest.mark.parametrize("kind", ["cpu", "TPU v4 lite", "NVIDIA H100 NVL", "NVIDIA GeForce", ""])
def test_unknown_kinds_are_not_guessed(kind):
    assert chip_for(kind) is None


def test_the_cpu_has_no_peak():
    assert chip_for(jax.devices()[0].device_kind) is None
    assert peak_flops(jax.devices()) is None
    assert chips_in(jax.devices()) == len(jax.devices())


def device(kind, **fields):
    return SimpleNamespace(device_kind=kind, **fields)


def test_two_devices_of_a_two_core_chip_are_one_chip():
    assert peak_flops([device("TPU v3", num_cores=1)] * 2) == CHIPS["v3"].peak_bf16
    assert peak_flops([device("TPU7x")] * 2) == CHIPS["tpu7x"].peak_bf16
    assert chips_in([device("TPU v3")] * 8) == 4


def test_a_megacore_device_is_a_chip_and_a_single_core_half_of_one():
    assert peak_flops([device("TPU v4", num_cores=2)]) == CHIPS["v4"].peak_bf16
    assert peak_flops([device("TPU v4", num_cores=1)]) == CHIPS["v4"].peak_bf16 / 2
    assert peak_flops([device("TPU v5 lite", num_cores=1)]) == CHIPS["v5e"].peak_bf16


def test_one_unknown_device_leaves_the_peak_unknown():
    assert peak_flops([device("TPU v5 lite"), device("cpu")]) is None


def test_the_table_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CHIPS["v4"].peak_bf16 = 1.0


@pytest.mark.parametrize("name", ["v2", "v3", "v4", "v5e", "v5p", "v6e", "tpu7x"])
def test_tpus_agree_with_what_jax_itself_states(name):
    """JAX's own figures are rounded, and for v3 of another clock: 15 % apart at most."""
    chip = CHIPS[name]
    version = pallas_tpu.ChipVersion(name.removeprefix("tpu"))
    assert version.num_physical_tensor_cores_per_chip == chip.cores
    info = pallas_tpu.get_tpu_info_for_chip(version, 1)
    assert info.bf16_ops_per_second * chip.cores == pytest.approx(chip.peak_bf16, rel=0.15)
    assert info.hbm_capacity_bytes * chip.cores == pytest.approx(chip.memory, rel=0.1)
    assert info.mem_bw_bytes_per_second * chip.cores == pytest.approx(chip.bandwidth, rel=0.15)
