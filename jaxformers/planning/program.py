"""Compiles the train step for a described pod, and reads memory, traffic and collectives from it.

Results are cached on disk under a hash of the lowered step, so planning the same step again
compiles nothing. The lowered step depends on the experiment, the mesh and the code.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from jaxformers import costs
from jaxformers.costs import flops_of
from jaxformers.costs.collectives import Collective, collectives
from jaxformers.costs.hlo import Program
from jaxformers.costs.traffic import moved_bytes, saved_for_backward, unknown_loops
from jaxformers.planning.topologies import Pod
from jaxformers.sharding import batch_sharding
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import abstract_state
from jaxformers.training.step import jit_step

# Windowed products and asynchronous fusions hide collectives; without them each is one operation.
READABLE = {
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
    "xla_tpu_enable_async_collective_fusion": "false",
}
# Compiles in a quarter of the time: the same collectives, and memory within a few percent. libtpu
# crashes on some programs at this effort (LAMB with accumulation on v6e) and ends the process.
LEAST = {"exec_time_optimization_effort": -1.0}
# Effort of the TPU compiler; with `mixed` only the collectives are read at the least effort.
Effort = Literal["full", "mixed", "least"]
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass
class Compiled:
    """Memory of a compiled step on one device, in bytes; no `arguments` if it did not compile.

    Attributes:
        flops: matrix products of the whole step on all devices, recomputation included.
        arguments: state and batch, padded to the hardware's tiles.
        outputs: outputs that do not reuse the memory of donated arguments.
        temporaries: all other buffers of the step.
        code: the program itself.
        saved_activations: the share of the temporaries that the forward pass saves for the backward
            pass.
        padding: the share of `saved_activations` that only pads arrays to tiles.
        padded: the array that loses the most to padding.
        moved: bytes read from and written to main memory.
        collectives: every collective of the step.
        readable: whether the collectives come from a compile that does not fuse them.
        unknown_loops: loops with matrix products of unknown trip count, each counted once.
        quick: whether everything comes from a compile at the least effort, memory included.
        required: the compiler's figure for a program that does not fit, if its message gives one.
        seconds: compile time.
    """

    flops: int = 0
    arguments: int | None = None
    outputs: int = 0
    temporaries: int = 0
    code: int = 0
    saved_activations: int = 0
    padding: int = 0
    padded: str = ""
    moved: int = 0
    collectives: list[Collective] = field(default_factory=list)
    readable: bool = False
    unknown_loops: int = 0
    quick: bool = False
    required: int | None = None
    seconds: float = 0.0

    @property
    def compiles(self) -> bool:
        """Whether the compiler could allocate the program."""
        return self.arguments is not None

    @property
    def needed(self) -> int | None:
        """Peak bytes on one device during the step."""
        if self.arguments is None:
            return self.required
        return self.arguments + self.outputs + self.temporaries + self.code


def compile_step(
    experiment: Experiment,
    pod: Pod,
    mesh: Mesh,
    shapes: dict[str, jax.ShapeDtypeStruct],
    effort: Effort = "full",
) -> Compiled:
    """The step that `train` runs, compiled for the devices of `mesh` and a batch of these shapes.

    At the least effort memory is a few percent off; at less than full effort the TPU compiler may
    crash the process (`LEAST`).

    Raises:
        ShardingError: a mesh that the model does not divide over.
    """
    where = batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=where)
        for name, spec in shapes.items()
    }
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        state = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, state)
        # Shapes with shardings in place of arrays: nothing is allocated, whatever the model's size.
        traced = step.trace(state, batch)
        lowered = traced.lower()
        quick = effort == "least" and mesh.devices.flat[0].platform == "tpu"
        # The lowered text is the key: an experiment that changes nothing in the program is not
        # compiled again.
        path = _cache_path(lowered, pod, mesh, quick)
        if (cached := _read(path)) is not None:
            return cached
        compiled = _compile(lowered, pod, mesh, device_bytes((state, batch)), effort)
        compiled.quick = quick
    # FLOPs come from the jaxpr: `cost_analysis()` counts the body of a rolled loop once.
    count = flops_of(traced.jaxpr)
    compiled.flops = count.matmul
    products = sum(turn.matmul > 0 for turn in count.unknown_loops)
    compiled.unknown_loops = max(compiled.unknown_loops, products)
    _write(path, compiled)
    return compiled


def device_bytes(tree: Any) -> int:
    """Bytes on one device of a tree of shapes with their shardings, without padding to tiles."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _compile(lowered: Any, pod: Pod, mesh: Mesh, arguments: int, effort: Effort) -> Compiled:
    began, divided = time.perf_counter(), mesh.devices.size > mesh.shape["data"] or pod.slices > 1
    tpu = mesh.devices.flat[0].platform == "tpu"
    quick = effort == "least" and tpu
    # Two compiles side by side: the real one tells memory and traffic, the readable one the
    # collectives, which the real one hides in windowed products and asynchronous fusions.
    apart = READABLE if effort == "full" else READABLE | LEAST
    with ThreadPoolExecutor() as pool:
        real = pool.submit(lowered.compile, apart if quick else None)
        readable = pool.submit(lowered.compile, apart) if tpu and divided and not quick else real
    try:
        program = real.result()
    except jax.errors.JaxRuntimeError as error:
        return _too_large(error, arguments)
    # The readable program may fail where the real one compiles; collectives then come from that.
    second = readable if readable.exception() is None else real
    memory, text = program.memory_analysis(), Program.parse(program.as_text())
    single = text if second is real else Program.parse(second.result().as_text())
    buffers = [module.buffer for module in saved_for_backward(text)]
    worst = max(buffers, key=lambda b: b.padded - b.bytes, default=None)
    return Compiled(
        arguments=memory.argument_size_in_bytes,
        # Donated state: outputs that reuse the arguments' memory are not counted twice.
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        # Buffers that live from the forward to the backward pass; never more than all temporaries.
        saved_activations=min(memory.temp_size_in_bytes, sum(b.padded for b in buffers)),
        padding=sum(b.padded - b.bytes for b in buffers),
        padded=str(worst or ""),
        moved=moved_bytes(text),
        collectives=collectives(single, dict(mesh.shape), pod.slices),
        readable=quick or second is not real,
        unknown_loops=max(len(unknown_loops(module)) for module in (text, single)),
        seconds=time.perf_counter() - began,
    )


def _too_large(error: Exception, arguments: int) -> Compiled:
    """Reads the required memory from an out-of-memory error; any other error is raised again."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        raise error
    size = re.search(r"\b(\d+(?:\.\d+)?)([KMGT])\b", text)  # the first number is the requirement
    if size is None:
        return Compiled()
    # Some messages give the temporaries' size alone: the arguments are added to those.
    size_bytes = int(float(size[1]) * _UNITS[size[2]])
    return Compiled(required=size_bytes + arguments * ("temporaries" in text))


def _cache_path(lowered: Any, pod: Pod, mesh: Mesh, quick: bool) -> Path:
    """Cache path of a result: a hash of the lowered step, the pod, the compiler and our parsers."""
    cache = os.environ.get("JAXFORMERS_CACHE") or Path.home() / ".cache" / "jaxformers"
    key = hashlib.sha256(lowered.as_text().encode())
    where = f"{pod.name} {dict(mesh.shape)}" + " quick" * quick
    for key_part in (where, jax.__version__, _version("libtpu"), _parser_hash()):
        key.update(key_part.encode())
    return Path(cache) / "plans" / f"{key.hexdigest()[:32]}.json"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _parser_hash() -> str:
    """A hash of the code that parses programs: a changed parser invalidates the cache."""
    files = [*sorted(Path(costs.__file__).parent.glob("*.py")), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _read(path: Path) -> Compiled | None:
    """The cached result; None if there is none or the file is damaged."""
    try:
        content = json.loads(path.read_text())
        rows = [
            Collective(**{n: _tuples(v) if isinstance(v, list) else v for n, v in fields.items()})
            for fields in content.pop("collectives")
        ]
        return Compiled(collectives=rows, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _write(path: Path, compiled: Compiled) -> None:
    """Writes a result to the cache; a cache that cannot be written is skipped."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(asdict(compiled), file)
        # Renamed in one step, so that another process never reads half a file.
        os.replace(file.name, path)
    except OSError:
        return
