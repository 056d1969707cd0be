"""Memory that a step gives back is kept for the next one."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxformers import allocator
from jaxformers.cli import command

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

# 100 MB in pages of 2 MiB, which XLA asks for since JAX 0.11, with room; there are 25,000 of 4 KiB.
STEP_FAULTS = 30
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


HOLES = """
import threading, time
from jaxformers import allocator

allocator.SPARE = 2**25
assert allocator.keep_freed_memory(True)

def hold_and_free():  # 128 MiB with something small behind each block
    blocks, small = [], []
    for _ in range(8):
        blocks.append(b"1" * 2**24)
        small.append(b"1" * 2**12)
    return small

small = hold_and_free()
held = allocator.resident()
allocator.give_back_surplus(held)
needed = allocator.resident()
most = allocator.give_back_surplus(0)
print(held, needed, allocator.resident(), most)

small += hold_and_free()
held, allocator.TIMES = allocator.resident(), 0  # the thread has seen it all in use
allocator.keep_freed_memory(True)
print([each.name for each in threading.enumerate()].count("jaxformers-memory"))
until = time.monotonic() + 60
while allocator.resident() > held / 2 and time.monotonic() < until:
    time.sleep(0.1)
print(held, allocator.resident())
"""


def program(text, **environment):
    """What a program prints, word by word, with nothing chosen but `environment`."""
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    plain |= {"GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    result = subprocess.run(
        [sys.executable, "-c", text],
        env=plain | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split()


def ran(**environment):
    """What `keep_freed_memory` returned, and the page faults of the same step twice."""
    enabled, first, second = program(PROGRAM, **environment)
    return enabled == "True", int(first), int(second)


@glibc
def test_what_a_step_gave_back_is_there_again_without_page_faults():
    enabled, first, second = ran()
    assert enabled and first > STEP_FAULTS and second < first / 20


@glibc
@pytest.mark.parametrize(
    "chosen",
    [{"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}],
)
def test_what_was_chosen_by_hand_stays(chosen):
    enabled, first, second = ran(**chosen)
    assert not enabled and first > STEP_FAULTS and second > STEP_FAULTS


@glibc
def test_memory_held_for_nothing_is_given_back():
    held, needed, left, most, threads, again, later = map(int, program(HOLES))
    assert needed > held * 0.9, "it may be needed again"
    assert left < held / 2 and left * 0.9 < most < left * 1.1, "what is left is in use"
    assert threads == 1
    assert again > held * 0.9 and later < again / 2, "the thread looks by itself"


def test_another_c_library_or_platform_is_left_alone(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("touched"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory(True)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    assert not allocator.keep_freed_memory(False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())  # before 2.33
    assert not allocator.keep_freed_memory(True)


def test_the_command_keeps_memory_whatever_the_verb(monkeypatch, capsys):
    calls = []
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(command, "keep_freed_memory", calls.append)
    assert command.main(["evaluate", "no-such-run"]) == 2 and calls == [True]
    assert "no-such-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "platforms, library, installed, alone",
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
    monkeypatch, platforms, library, installed, alone
):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setenv("TPU_LIBRARY_PATH", library)
    monkeypatch.setattr(allocator, "find_spec", lambda name: name == installed)
    monkeypatch.setattr(allocator, "entry_points", lambda group: ())
    assert allocator.cpu_alone() is alone


def test_only_the_command_changes_the_allocator_of_a_process():
    package = Path(allocator.__file__).parent
    users = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "keep_freed_memory" in path.read_text()
    }
    assert users == {"allocator.py", "cli/command.py"}
