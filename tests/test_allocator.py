"""Memory that a step gives back is kept for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from jaxformers import allocator, cli

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

PROGRAM = """
import resource
from jaxformers.allocator import cpu_alone, keep_freed_memory

kept = keep_freed_memory(cpu_alone())

import jax, jax.numpy as jnp

@jax.jit
def step(x):  # 100 MB on a thread of XLA's
    return jnp.exp(jnp.einsum("btk,bsk->bts", x, x)).sum()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

x = jnp.ones((24, 1024, 16))
print(kept, faults(), faults())
"""


def ran(**environment):
    """What `keep_freed_memory` said, and the page faults of the same step twice."""
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    plain |= {"GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env=plain | environment, capture_output=True, text=True, check=True
    )
    kept, first, second = done.stdout.split()
    return kept == "True", int(first), int(second)


@glibc
def test_what_a_step_gave_back_is_there_again_without_page_faults():
    kept, first, second = ran()
    assert kept and first > 20000 and second < first / 20


@glibc
@pytest.mark.parametrize(
    "chosen",
    [{"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}],
)
def test_what_was_chosen_by_hand_stays(chosen):
    kept, first, second = ran(**chosen)
    assert not kept and second > first / 2


def test_another_c_library_or_platform_is_left_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("touched"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory(True)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert not allocator.keep_freed_memory(False)


def test_the_command_keeps_memory_whatever_the_verb(monkeypatch, capsys):
    told = []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(cli, "keep_freed_memory", told.append)
    assert cli.main(["evaluate", "no-such-run"]) == 2 and told == [True]
    assert "no-such-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "told, library, installed, alone",
    [
        ("cpu", "", "libtpu", True),
        ("cuda,cpu", "", "", False),
        ("", "", "", True),
        ("", "", "libtpu", False),
        ("", "", "jax_plugins", False),
        ("", "/lib/libtpu.so", "", False),
    ],
)
def test_cpu_is_alone_where_it_is_told_or_nothing_else_is_there(
    monkeypatch, told, library, installed, alone
):
    monkeypatch.setenv("JAX_PLATFORMS", told)
    monkeypatch.setenv("TPU_LIBRARY_PATH", library)
    monkeypatch.setattr(allocator, "find_spec", lambda name: name == installed)
    monkeypatch.setattr(allocator, "entry_points", lambda group: ())
    assert allocator.cpu_alone() is alone
