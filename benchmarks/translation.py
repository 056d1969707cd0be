"""Benchmarks translation: training and decoding against PyTorch, data loading and start-up.

    pip install -e .[bench]
    python benchmarks/translation.py --json translation.json
    python benchmarks/translation.py --parts step data       only these benchmarks

step    a training step of the base model against Hugging Face's Marian in PyTorch (train_step.py)
data    examples/s of the data pipeline, and examples/s that the demo's training consumes
start   seconds from the demo's command to its first step, with a cold and a warm compilation cache
decode  beam search against Hugging Face's (decoding.py)
gpu     step time and MFU of the big model in bfloat16, if JAX sees a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import frame

os.environ.setdefault("JAX_PLATFORMS", "cpu")

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "experiments" / "translation" / "demo.py"
PARTS = ("step", "data", "start", "decode", "gpu")
BUCKETS = ((64, 16, 20), (48, 32, 48))


def step_part(args: argparse.Namespace) -> list[dict]:
    import train_step

    rows = []
    for shape in args.shapes:
        rows.append(train_step.compare(train_step.parse_shape(shape), args.turns))
        print("\n".join(train_step.table(rows[-1:])[len(rows) > 1 :]), flush=True)
    return rows


def data_part(args: argparse.Namespace) -> list[dict]:
    """Examples per second, packed and bucketed, from a thread and from two worker processes."""
    from dataclasses import replace

    from jaxformers.data import Bucketing, batches

    experiment = demo_experiment()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXFORMERS_CACHE"] = folder
        data = experiment.task.open(Path(folder) / "run", experiment.seed)
        consumed = training_rate(experiment, data)
        print(f"the demo trains on {consumed:,.0f} examples/s; examples/s of the pipeline alone:")
        plans = {"packing": data.plan, "bucketing": Bucketing(BUCKETS).plan(data.store)}
        rows = []
        for (name, plan), workers in ((p, w) for p in plans.items() for w in (0, 2)):
            dataset = replace(data, plan=plan, workers=workers)
            stream = batches(dataset.store, dataset.plan, seed=0, workers=workers)
            rate = stream_rate(stream)
            rows.append({"plan": name, "workers": workers, "examples_per_s": rate})
            rows[-1] |= {"consumed_per_s": consumed, "ratio": rate / consumed}
            print(f"{name:>10}, {workers} workers: {rate:10,.0f}, {rate / consumed:6.0f} times")
    return rows


def demo_experiment():
    from jaxformers.training.config.experiment_files import load_experiment

    return load_experiment(DEMO)


def num_examples(batch) -> int:
    return int(batch["target_segments"].max(axis=1).sum())


def training_rate(experiment, data, steps: int = 10) -> float:
    """Examples per second of the demo's compiled train step, at its fastest step."""
    from train_step import our_step

    batch = next(stream := data.batches(0, 0, 0, 1))
    stream.close()
    run, seconds = our_step(experiment, batch), []
    for _ in range(steps):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return num_examples(batch) / min(seconds)


def stream_rate(stream: Iterator, warmup: int = 50, count: int = 400) -> float:
    """Examples per second of an iterator of batches, after `warmup` batches."""
    sum(1 for _ in islice(stream, warmup))
    start = time.perf_counter()
    examples = sum(num_examples(batch) for batch in islice(stream, count))
    seconds = time.perf_counter() - start
    stream.close()
    return examples / seconds


def start_part(args: argparse.Namespace) -> list[dict]:
    """Seconds from the command to its first step, with a cold and then a warm compilation cache."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cold", "warm"):
            seconds, line = seconds_to_first_step(Path(folder), kind)
            rows.append({"cache": kind, "seconds": seconds, "log": line})
            print(f"{kind} compilation cache: {seconds:.1f} s from the command to the first step")
    return rows


def seconds_to_first_step(folder: Path, kind: str) -> tuple[float, dict]:
    """Runs the demo until its first line of metrics; returns the seconds and that line."""
    caches = {"JAX_COMPILATION_CACHE_DIR": "programs", "JAXFORMERS_CACHE": "pairs"}
    environment = os.environ | {name: str(folder / value) for name, value in caches.items()}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    command = [sys.executable, "-m", "jaxformers", "train", str(DEMO), "--steps", "1"]
    metrics = folder / kind / "metrics.jsonl"
    with open(folder / f"{kind}.log", "wb") as log:
        start = time.time()
        process = subprocess.Popen(
            [*command, "--folder", str(folder / kind)], stdout=log, stderr=log, env=environment
        )
        try:
            while not (metrics.exists() and metrics.read_text().endswith("\n")):
                if process.poll() is not None:
                    raise SystemExit((folder / f"{kind}.log").read_text())
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    line = json.loads(metrics.read_text().splitlines()[0])
    return line["time"] - start, line


def decode_part(args: argparse.Namespace) -> list[dict]:
    """Runs decoding.py, which prints a table, and returns its rows."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "decoding.json"
        subprocess.run(
            [sys.executable, str(HERE / "decoding.py"), "--json", str(output)], check=True
        )
        return json.loads(output.read_text())["results"]["rows"]


def gpu_part(args: argparse.Namespace) -> list[dict]:
    """Runs train_step.py in a separate process, since this one keeps JAX on the CPU."""
    command = [sys.executable, str(HERE / "train_step.py"), "--gpu"]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    if process.returncode:
        print(process.stderr.splitlines()[-1])
        return []
    result = json.loads(process.stdout.splitlines()[-1])
    mfu = f"{result['mfu']:.1%} MFU" if result["mfu"] else "peak FLOP/s unknown"
    print(f"{result['device']}: {1e3 * result['step_s']:.1f} ms a step, {mfu}")
    return [result]


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", default=["8x64", "8x128"], help="rows x tokens")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each side")
    args = parser.parse_args()
    benchmarks = {"step": step_part, "data": data_part, "start": start_part}
    benchmarks |= {"decode": decode_part, "gpu": gpu_part}
    results: dict[str, list[dict]] = {}
    print(" ".join(f"{key} {value}" for key, value in frame.machine().items()))
    for name in args.parts:
        print(f"\n{name}", flush=True)
        results[name] = benchmarks[name](args)
        frame.keep(args.json, results)


if __name__ == "__main__":
    main()
