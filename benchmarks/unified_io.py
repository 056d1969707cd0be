"""Benchmarks Unified-IO: decoding against the authors' code, and memory of import and export.

    python benchmarks/unified_io.py decode --authors unified-io-inference/ --python PYTHON
    python benchmarks/unified_io.py memory --size xl

`decode` writes the small model with random weights in the published format. Our code and the
authors' (github.com/allenai/unified-io-inference, unmodified, with its prediction function
compiled) load that file and process the same batch by nucleus sampling (0.9): a text of fixed
length, then 256 image codes, then the image. The two alternate; each time covers the complete
output in the steady state. PYTHON is an interpreter with jax 0.4.13, flax 0.7.0, numpy 1.23 and
einops.

`memory` writes a file of random weights of a given size, array by array. It prints the peak
resident memory of a separate process that imports the file and exports it again.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import frame
import jax
import numpy as np
from etils import epath

import jaxformers as jf
from jaxformers.decoding.generation import generate_codes, generate_text
from jaxformers.decoding.sampling import Sampling
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.pretrained.formats.flax_msgpack import write_file
from jaxformers.pretrained.model_variables import flatten
from jaxformers.pretrained.unified_io.unified_io_names import unified_io_map

SIZES = ("small", "base", "large", "xl")
PEER = Path(__file__).with_name("unified_io_peer.py")
NUCLEUS = Sampling(top_p=0.9)
# Does not use `frame.parser`, which would keep freed memory.
CONVERT = """
import resource, sys
import jaxformers as jf

def peak():
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)

model, variables = jf.from_pretrained(sys.argv[1])
peak()
jf.save_pretrained(model, variables, sys.argv[2], "unified_io")
peak()
"""


class RandomArray:
    """Normally distributed weights, sampled when the array is written; norm scales are 1."""

    def __init__(self, name: str, shape: tuple[int, ...]):
        self.name, self.shape, self.ndim = name, shape, len(shape)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.name.endswith("scale"):
            return np.ones(self.shape, np.float32)
        rng = np.random.default_rng(list(self.name.encode()))
        inputs = max(int(np.prod(self.shape[:-1])), 1)
        deviation = 1.0 if "embed" in self.name else inputs**-0.5
        return rng.standard_normal(self.shape, np.float32) * np.float32(deviation)


def write_random(size: str, path: Path) -> None:
    """Writes random weights in the published format, with one array at a time in memory."""
    tokenizer = VQGANConfig(codebook_init="normal")
    model = jf.UnifiedIO(getattr(UnifiedIOConfig, size)(image_tokenizer=tokenizer))
    leaves = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    slots = unified_io_map(model.config).slots({name: x.shape for name, x in leaves.items()})
    shapes = {slot.names[0]: slot.their_shape for slot in slots}
    write_file(epath.Path(path), {name: RandomArray(name, s) for name, s in shapes.items()})


def inputs(batch: int, text: int) -> dict[str, np.ndarray]:
    """Random prompts and images."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 32_000, (batch, text)).astype(np.int32)
    images = rng.standard_normal((batch, 384, 384, 3), np.float32)
    return {"input_ids": ids, "images": images}


def ours(path: Path, batch: dict[str, np.ndarray], tokens: int) -> Callable[[], object]:
    """A function that generates our outputs for the batch."""
    model, variables = jf.from_pretrained(path)
    variables = jax.device_put(variables)

    @jax.jit
    def decode_image(variables, codes):
        return model.apply(variables, codes, method="decode_image")

    def run():
        keys = jax.random.split(jax.random.key(0))
        text = generate_text(model, variables, batch, tokens, sampling=NUCLEUS, key=keys[0])
        codes = generate_codes(model, variables, batch, keys[1], text.ids, sampling=NUCLEUS)
        return np.asarray(decode_image(variables, codes.ids))

    return run


class Authors:
    """The authors' code in a separate process; each call generates outputs for the batch."""

    def __init__(self, args: argparse.Namespace, path: Path, batch: dict[str, np.ndarray]):
        file = path.with_name("batch.npz")
        np.savez(file, **batch)
        command = [args.python, str(PEER), args.authors, str(path), str(file), str(args.tokens)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> None:
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        if self._process.stdout.readline() != "done\n":
            raise SystemExit("the authors' code has exited; see its output above")

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def decode(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each turn, ours and the authors'."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "small_1000k.bin")
        write_random("small", path)
        batch = inputs(args.batch, args.text)
        authors = Authors(args, path, batch)
        runs = {"ours": ours(path, batch, args.tokens), "authors": authors}
        for run in runs.values():  # compiles
            run()
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.turns):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
        authors.end()
    for name, times in seconds.items():
        print(f"{name:8} {min(times):7.1f} s  ({', '.join(f'{t:.1f}' for t in times)})")
    print(f"ratio    {min(seconds['authors']) / min(seconds['ours']):7.2f}")
    return seconds


def memory(args: argparse.Namespace) -> dict[str, float]:
    """Peak resident memory in GB of a child process after import and after export."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, f"{args.size}_1000k.bin")
        write_random(args.size, path)
        size = path.stat().st_size / 1e9
        command = [sys.executable, "-c", CONVERT, str(path), str(Path(folder, "out"))]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    results = {"file": size, "import": float(lines[0]), "export": float(lines[1])}
    print("  ".join(f"{name} {value:.2f} GB" for name, value in results.items()))
    return results


def main() -> None:
    parser = frame.parser(__doc__)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("decode")
    verb.add_argument("--authors", required=True, help="folder of the authors' repository")
    verb.add_argument("--python", required=True, help="interpreter that runs the authors' code")
    verb.add_argument("--batch", type=int, default=8)
    verb.add_argument("--text", type=int, default=64, help="prompt tokens")
    verb.add_argument("--tokens", type=int, default=32, help="tokens of the generated text")
    verb.add_argument("--turns", type=int, default=3)
    verb.set_defaults(measure=decode)
    verb = verbs.add_parser("memory")
    verb.add_argument("--size", choices=SIZES, default="xl")
    verb.add_argument("--folder", help="temporary folder with space for two files")
    verb.set_defaults(measure=memory)
    args = parser.parse_args()
    frame.keep(args.json, args.measure(args))


if __name__ == "__main__":
    main()
