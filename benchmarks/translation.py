"""The speed of training and decoding beside PyTorch, and of the demo's parts, in one run.

    pip install -e .[bench]
    python benchmarks/translation.py --json translation.json
    python benchmarks/translation.py --parts step data       only these parts

step    a training step of the base model beside PyTorch's Hugging Face Marian (train_step.py)
data    examples a second of the data pipeline alone, and that the demo's training consumes
start   seconds from the demo's command to its first step, without and with a compilation cache
decode  beam search beside Hugging Face's (decoding.py)
gpu     step time and MFU of the big model in bfloat16, where JAX sees a GPU
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
    """Examples a second: packed and bucketed, made by a thread and by two processes."""
    from dataclasses import replace

    from jaxformers.data import Bucketing, batches

    experiment = demo_experiment()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAXFORMERS_CACHE"] = folder
        opened = experiment.task.open(Path(folder) / "run", experiment.seed)
        consumed = examples_a_second_trained(experiment, opened)
        print(
            f"the demo trains on {consumed:,.0f} examples/s; the pipeline alone makes, per second"
        )
        plans = {"packing": opened.plan, "bucketing": Bucketing(BUCKETS).plan(opened.store)}
        rows = []
        for (name, plan), workers in ((p, w) for p in plans.items() for w in (0, 2)):
            made = replace(opened, plan=plan, workers=workers)
            stream = batches(made.store, made.plan, seed=0, workers=workers)
            rate = examples_a_second(stream)
            rows.append({"plan": name, "workers": workers, "examples_per_s": rate})
            rows[-1] |= {"consumed_per_s": consumed, "ratio": rate / consumed}
            print(f"{name:>10}, {workers} workers: {rate:10,.0f}, {rate / consumed:6.0f} times")
    return rows


def demo_experiment():
    from jaxformers.training.config.experiment_files import load_experiment

    return load_experiment(DEMO)


def examples_in(batch) -> int:
    return int(batch["target_segments"].max(axis=1).sum())


def examples_a_second_trained(experiment, opened, steps: int = 10) -> float:
    """What the demo's compiled step takes in, at its fastest step."""
    from train_step import our_step

    batch = next(stream := opened.batches(0, 0, 0, 1))
    stream.close()
    run, seconds = our_step(experiment, batch), []
    for _ in range(steps):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return examples_in(batch) / min(seconds)


def examples_a_second(stream: Iterator, warm: int = 50, count: int = 400) -> float:
    """What an iterator of batches gives after its first ones."""
    sum(1 for _ in islice(stream, warm))
    began = time.perf_counter()
    examples = sum(examples_in(batch) for batch in islice(stream, count))
    seconds = time.perf_counter() - began
    stream.close()
    return examples / seconds


def start_part(args: argparse.Namespace) -> list[dict]:
    """Seconds from the command to its first step, run twice with one compilation cache."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("cold", "warm"):
            seconds, line = seconds_to_first_step(Path(folder), kind)
            rows.append({"cache": kind, "seconds": seconds, "log": line})
            print(f"{kind} compilation cache: {seconds:.1f} s from the command to the first step")
    return rows


def seconds_to_first_step(folder: Path, run: str) -> tuple[float, dict]:
    """Starts the demo, waits for its first line of metrics, and ends it."""
    caches = {"JAX_COMPILATION_CACHE_DIR": "programs", "JAXFORMERS_CACHE": "pairs"}
    environment = os.environ | {name: str(folder / value) for name, value in caches.items()}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    command = [sys.executable, "-m", "jaxformers", "train", str(DEMO), "--steps", "1"]
    metrics = folder / run / "metrics.jsonl"
    with open(folder / f"{run}.log", "wb") as log:
        began = time.time()
        process = subprocess.Popen(
            [*command, "--folder", str(folder / run)], stdout=log, stderr=log, env=environment
        )
        try:
            while not (metrics.exists() and metrics.read_text().endswith("\n")):
                if process.poll() is not None:
                    raise SystemExit((folder / f"{run}.log").read_text())
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    line = json.loads(metrics.read_text().splitlines()[0])
    return line["time"] - began, line


def decode_part(args: argparse.Namespace) -> list[dict]:
    """The rows of decoding.py, which prints its own table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "decoding.json"
        subprocess.run([sys.executable, str(HERE / "decoding.py"), "--json", str(out)], check=True)
        return json.loads(out.read_text())["results"]["rows"]


def gpu_part(args: argparse.Namespace) -> list[dict]:
    """In a process of its own, since the other parts keep JAX on the CPU."""
    command = [sys.executable, str(HERE / "train_step.py"), "--gpu"]
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr.splitlines()[-1])
        return []
    result = json.loads(done.stdout.splitlines()[-1])
    mfu = f"{result['mfu']:.1%} MFU" if result["mfu"] else "peak not known"
    print(f"{result['device']}: {1e3 * result['step_s']:.1f} ms a step, {mfu}")
    return [result]


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--shapes", nargs="+", default=["8x64", "8x128"], help="rows x tokens")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each side")
    args = parser.parse_args()
    parts = {"step": step_part, "data": data_part, "start": start_part}
    parts |= {"decode": decode_part, "gpu": gpu_part}
    results: dict[str, list[dict]] = {}
    print(" ".join(f"{key} {value}" for key, value in frame.machine().items()))
    for name in args.parts:
        print(f"\n{name}", flush=True)
        results[name] = parts[name](args)
        frame.keep(args.json, results)


if __name__ == "__main__":
    main()
