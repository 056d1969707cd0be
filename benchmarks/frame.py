"""What the benchmarks share: arguments, taking turns, the machine, and the file of results."""

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
    """A parser that answers `--help` with the script's docstring and knows `--json`.

    From here on memory is kept as in `jaxformers train`, which JAX must not have started for yet;
    so it is for the peer.
    """
    keep_freed_memory(cpu_alone())
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, help="file for the results")
    return made


def keep(file: Path | None, results: Any) -> None:
    """Writes the results, beside the machine that they belong to, where a file is asked for."""
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """Cores, their load, and the versions of the packages that matter."""
    found = {"cores": cores(), "load": os.getloadavg()[0], "processor": platform.machine()}
    found["malloc"] = os.environ.get("GLIBC_TUNABLES", "")  # huge pages or not
    found["xla_flags"] = os.environ.get("XLA_FLAGS", "")  # which library multiplies
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def take_turns(runs: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Seconds of each run, A B A B ..., each in its steady state.

    A turn begins with a call that does not count: a step that follows a step finds the memory that
    the last one used, and one that follows another program's has to ask the kernel for it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        settle(run)
    for _ in range(turns):
        for name, run in runs.items():
            time.sleep(0.1)  # the other's threads go to sleep
            run()
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def settle(run: Run) -> None:
    """Calls it until two calls in a row took no more memory, ten times at most.

    A program's first steps ask the kernel for theirs, which can take as long as the rest of a step.
    """

    def held() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB

    steady = 0
    for _ in range(10):
        before = held()
        run()
        steady = steady + 1 if held() < before + 2**14 else 0
        if steady == 2:
            return


def beside_product(runs: dict[str, Run], turns: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each run, and the machine's peak in FLOP/s, of the same minutes.

    The peak is what a matrix product as large as XLA likes it reaches.
    """
    import jax

    size = 2048
    a, b = (jax.random.normal(jax.random.key(i), (size, size)) for i in range(2))
    multiply = jax.jit(jax.numpy.matmul)
    product = {"product": lambda: multiply(a, b).block_until_ready()}
    seconds = take_turns(runs | product, turns)
    # Short beside a step, so measured often: its least time is the machine's own.
    products = seconds.pop("product") + take_turns(product, 4 * turns)["product"]
    return seconds, 2.0 * size**3 / min(products)


def need_gpu() -> None:
    """Ends the script where JAX sees no GPU."""
    import jax

    if jax.default_backend() != "gpu":
        raise SystemExit("JAX sees no GPU here")


def on_gpu(run: Run, flops: float, turns: int) -> dict[str, Any]:
    """The fastest step on this machine's GPU, and what share of its peak that is, if known."""
    import jax

    from jaxformers.costs import peak_flops

    seconds = min(take_turns({"ours": run}, turns)["ours"])
    peak = peak_flops(jax.devices())
    found = {"device": jax.devices()[0].device_kind, "step_s": seconds}
    return found | {"tflops": flops / seconds / 1e12, "mfu": peak and flops / seconds / peak}
