"""Shared by the benchmarks: arguments, alternating timings, machine description, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jaxformers.allocator import cpu_alone, keep_freed_memory

PACKAGES = ("jax", "flax", "optax", "torch", "transformers")
Run = Callable[[], object]


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring for `--help` and has the option `--json`.

    Also configures the allocator to keep freed memory, as `jaxformers train` does. This must happen
    before JAX is initialised, and applies to the peer too.
    """
    keep_freed_memory(cpu_alone())
    argument_parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    argument_parser.add_argument("--json", type=Path, help="file for the results")
    return argument_parser


def keep(file: Path | None, results: Any) -> None:
    """Writes the results and a description of the machine to `file`, if there is one."""
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Cores, load, allocator and XLA settings, and versions of the relevant packages."""
    info = {"cores": cores(), "load": os.getloadavg()[0], "processor": platform.machine()}
    info["malloc"] = os.environ.get("GLIBC_TUNABLES", "")  # selects huge pages
    info["xla_flags"] = os.environ.get("XLA_FLAGS", "")  # select the matrix library
    for name in PACKAGES:
        try:
            info[name] = version(name)
        except PackageNotFoundError:
            continue
    return info


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def take_turns(runs: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Times the functions alternately (A B A B ...), each in its steady state; seconds per call.

    Each turn starts with an untimed call. It lets the timed call reuse the memory of the previous
    one; the first call after another program has to request its memory from the kernel.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        settle(run)
    for _ in range(turns):
        for name, run in runs.items():
            time.sleep(0.1)  # lets the threads of the previous function go to sleep
            run()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def settle(run: Run) -> None:
    """Calls a function until its memory has stopped growing for two calls, at most ten times.

    The first steps of a program request memory from the kernel, which can double their time.
    """

    def peak_memory() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

    steady = 0
    for _ in range(10):
        before = peak_memory()
        run()
        steady = steady + 1 if peak_memory() < before + 2**14 else 0
        if steady == 2:
            return


def beside_product(runs: dict[str, Run], turns: int) -> tuple[dict[str, list[float]], float]:
    """Times the functions alternately with a large matrix product.

    Returns:
        The seconds of each function, and the FLOP/s of the product, which serve as the machine's
        peak at the time of the measurement.
    """
    import jax

    size = 2048
    a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
    multiply = jax.jit(jax.numpy.matmul)
    product = {"product": lambda: multiply(a, b).block_until_ready()}
    seconds = take_turns(runs | product, turns)
    # The product is shorter than a step, so it is timed more often to find its fastest time.
    products = seconds.pop("product") + take_turns(product, 4 * turns)["product"]
    return seconds, 2.0 * size**3 / min(products)


def need_gpu() -> None:
    """Exits the script if JAX sees no GPU."""
    import jax

    if jax.default_backend() != "gpu":
        raise SystemExit("JAX sees no GPU on this machine")


def on_gpu(run: Run, flops: float, turns: int) -> dict[str, Any]:
    """Fastest step time on this machine's GPU, its TFLOP/s, and MFU if the GPU's peak is known."""
    import jax

    from jaxformers.costs import peak_flops

    seconds = min(take_turns({"ours": run}, turns)["ours"])
    peak = peak_flops(jax.devices())
    metrics = {"device": jax.devices()[0].device_kind, "step_s": seconds}
    return metrics | {"tflops": flops / seconds / 1e12, "mfu": peak and flops / seconds / peak}
