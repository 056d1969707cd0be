"""Memory that a step gives back is kept for the next one."""

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")

PROGRAM = """
import resource
from jaxformers.training.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"x" * (1 << 26)  # 64 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(keep_freed_memory(), faults(), faults())
"""


def ran(**environment):
    """What `keep_freed_memory` said, and the page faults of the same block twice."""
    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    environment = plain | {"GLIBC_TUNABLES": "", "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    kept, first, second = done.stdout.split()
    return kept == "True", int(first), int(second)


@glibc
def test_a_block_that_was_freed_is_there_again_without_page_faults():
    kept, first, second = ran()
    assert kept and first > 1000 and second < first / 20


@glibc
@pytest.mark.parametrize(
    "chosen",
    [{"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}],
)
def test_what_was_chosen_by_hand_stays(chosen):
    kept, first, second = ran(**chosen)
    assert not kept and second > first / 2


def test_another_c_library_or_platform_is_left_alone(monkeypatch):
    import jax

    from jaxformers.training import allocator

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("touched"))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory()
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not allocator.keep_freed_memory()
