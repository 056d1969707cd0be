"""A state that is a function of its step, and the processes that the checkpoint tests start."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxformers.errors import CheckpointError
from jaxformers.training.checkpoints.checkpoint_manager import Checkpointer, Checkpointing

ROOT = Path(__file__).resolve().parents[2]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict
    opt_state: optax.OptState
    model_state: dict
    ema: dict | None


def mesh_of(devices: int):
    return jax.make_mesh(
        (devices,), ("fsdp",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def arrays(step: int, width: int = 16) -> dict:
    random = np.random.default_rng(step)
    return {
        "embed": {"table": random.normal(size=(24, width)).astype(np.float32)},
        "layers": {"kernel": random.normal(size=(2, 8, width)).astype(np.float32)},
        "scale": np.float32(random.normal()),
    }


def host_state(step: int, width: int = 16) -> State:
    params = arrays(step, width)
    opt_state = optax.adam(1e-3).init(params)
    opt_state = jax.tree.map(
        lambda leaf: np.asarray(leaf) + np.asarray(step, leaf.dtype), opt_state
    )
    return State(np.int32(step), params, opt_state, {"mean": np.full(8, step, np.float32)}, None)


def spec(leaf) -> P:
    return P("fsdp") if leaf.ndim == 2 else P(None, "fsdp") if leaf.ndim == 3 else P()


def placed(state: State, mesh) -> State:
    def place(leaf):
        sharding = NamedSharding(mesh, spec(leaf))
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, jax.tree.map(np.asarray, state))


def abstract(state: State, mesh=None) -> State:
    def shape(leaf):
        sharding = NamedSharding(mesh, spec(leaf)) if mesh else None
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(shape, jax.tree.map(np.asarray, state))


def assert_equal(actual, expected) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        # Bytes, so that -0.0 and NaN count; each process looks at the shards it has.
        shards = a.addressable_shards if isinstance(a, jax.Array) else []
        pairs = [(s.data, np.asarray(b)[s.index]) for s in shards] or [(a, b)]
        for mine, theirs in pairs:
            mine, theirs = np.asarray(mine), np.asarray(theirs)
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert mine.tobytes() == theirs.tobytes()


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    """Run this file as a process of its own."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def save_for_ever(folder: str, width: str) -> None:
    """Go on from the newest checkpoint and save every step, until killed."""
    checkpointer = Checkpointer(folder, Checkpointing(keep_last=2))
    restored = checkpointer.restore(abstract(host_state(0, int(width))))
    step = restored.step if restored else 0
    if restored:
        assert_equal(restored.state, host_state(step, int(width)))
    print("restored", step, flush=True)
    mesh = mesh_of(1)
    while True:
        step += 1
        checkpointer.save(step, placed(host_state(step, int(width)), mesh), {"at": step})


def fill_the_disk(folder: str) -> None:
    """Save a small state, then one with a file longer than the process may write."""
    import resource
    import signal
    import threading

    checkpointer = Checkpointer(folder, Checkpointing())
    mesh = mesh_of(1)
    checkpointer.save(1, placed(host_state(1), mesh), {}, wait=True)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    checkpointer.save(2, placed(host_state(2, 4096), mesh), {})
    for call in (checkpointer.wait, checkpointer.close):
        try:
            call()
            print("no error", flush=True)
        except CheckpointError as error:
            print(error, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    print("threads", [t.name for t in threading.enumerate() if t.name.startswith("checkpoint")])


def save_as_one_of_two(folder: str, port: str, process: str) -> None:
    """Two processes of four devices save step 7, restore it, and save step 8.

    What each has to tell goes to a file: Gloo's threads write to the standard output, now and then
    into the middle of a line.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(process))
    mesh = mesh_of(8)
    log = Path(f"{folder}.{process}")
    log.touch()

    def tell(line: str) -> None:
        log.write_text(log.read_text() + line + "\n")

    checkpointer = Checkpointer(folder, Checkpointing(), report=tell)
    previous = checkpointer.restore(abstract(host_state(0), mesh))
    tell(f"found {previous.step if previous else None}")
    if previous:
        assert_equal(previous.state, host_state(previous.step))
    for step in (7, 8):
        checkpointer.save(step, placed(host_state(step), mesh), {"at": step}, {"bleu": step})
    restored = checkpointer.restore(abstract(host_state(0), mesh))
    assert restored.step == 8
    assert restored.metadata == {"at": 8}
    assert_equal(restored.state, host_state(8))
    mean = checkpointer.average_params(abstract(host_state(0), mesh).params, 2)
    expected = jax.tree.map(lambda a, b: (a + b) / np.float32(2), arrays(7), arrays(8))
    for a, b in zip(jax.tree.leaves(mean), jax.tree.leaves(expected), strict=True):
        for shard in a.addressable_shards:
            np.testing.assert_allclose(shard.data, b[shard.index], rtol=1e-6)
    checkpointer.close()
    tell("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
