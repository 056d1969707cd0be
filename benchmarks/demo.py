"""Compares the translation demo with a PyTorch peer trained for the same wall time, over seeds.

    pip install -e .[bench]
    python benchmarks/demo.py --seeds 0 1 2 --json demo.json

For each seed, the demo trains as `jaxformers train experiments/translation/demo.py` does. Then
demo_peer.py trains for as long as the demo took from the start of its first compilation. Both
translate the 749 held-out sources with greedy search, and the demo also with its beam search. All
outputs are scored by the same code, together with the translation memory of translation_memory.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import frame
from translation_memory import ALIKE, learnable, translation_memory

from jaxformers.evaluation import chrf2, corpus_bleu

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "experiments" / "translation" / "demo.py"
UNIT = "target tokens/s"
COLUMNS = ("bleu", "bleu_dissimilar", "chrf2", "target_tokens_per_s", "seconds")


class Scorer:
    """BLEU of translations on all held-out pairs and on the dissimilar ones, and chrF2."""

    def __init__(self):
        train, held_out = learnable("train"), learnable("held_out")
        self.sources, self.references = (list(side) for side in zip(*held_out, strict=True))
        self.memory, _ = translation_memory(train, self.sources)
        _, alike = translation_memory(train, self.sources, lower=True)
        self.hard = [i for i, ratio in enumerate(alike) if ratio < ALIKE]

    def __call__(self, outputs: list[str]) -> dict[str, float]:
        hard, references = ([side[i] for i in self.hard] for side in (outputs, self.references))
        return {
            "bleu": corpus_bleu(outputs, self.references).score,
            "bleu_dissimilar": corpus_bleu(hard, references).score,
            "chrf2": chrf2(outputs, self.references).score,
        }


def run(command: list[str], log: Path, sources: list[str] | None = None) -> str:
    """Runs this Python with arguments; returns its standard output and appends stderr to `log`."""
    text = None if sources is None else "".join(f"{line}\n" for line in sources)
    with open(log, "a", encoding="utf-8") as errors:
        process = subprocess.run(
            [sys.executable, *command],
            input=text,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}; see {log}")
    return process.stdout


def train_demo(folder: Path, seed: int, extra: list[str]) -> dict[str, float]:
    """Trains the demo; returns its wall time from the first compilation on, and its throughput."""
    start = time.perf_counter()
    fields = ["--folder", str(folder), "--seed", str(seed), *extra]
    run(["-m", "jaxformers", "train", str(DEMO), *fields], folder.with_suffix(".log"))
    elapsed = time.perf_counter() - start
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return timing([line for line in lines if "loss" in line]) | {"whole_seconds": elapsed}


def timing(lines: list[dict]) -> dict[str, float]:
    """Wall time of the training steps, compilation included, and target tokens per second."""
    seconds = lines[-1]["time"] - lines[0]["time"] + lines[0]["compile_seconds"]
    tokens = steps = 0.0
    for line in lines[1:]:
        tokens += line.get(UNIT, 0.0) / line.get("steps/s", 1.0) * (line["step"] - steps)
        steps = line["step"]
    steady = [line[UNIT] for line in lines if UNIT in line]
    metrics = {"steps": steps, "seconds": seconds, "target_tokens_per_s": tokens / seconds}
    return metrics | {"steady_target_tokens_per_s": sorted(steady)[len(steady) // 2]}


def translate_demo(folder: Path, sources: list[str], beams: list[str]) -> list[str]:
    command = ["-m", "jaxformers", "translate", str(folder), *beams]
    return run(command, folder.with_suffix(".log"), sources).removesuffix("\n").split("\n")


def train_peer(folder: Path, seed: int, seconds: float) -> tuple[dict[str, float], list[str]]:
    output, results = folder.with_suffix(".txt"), folder.with_suffix(".json")
    command = [str(HERE / "demo_peer.py"), "--seconds", str(seconds), "--seed", str(seed)]
    run([*command, "--out", str(output), "--json", str(results)], folder.with_suffix(".log"))
    lines = output.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return json.loads(results.read_text())["results"], lines


def compare(folder: Path, seed: int, scorer: Scorer, extra: list[str]) -> list[dict]:
    """Trains and scores both systems with one seed; one row per system and search."""
    ours = train_demo(folder / f"demo-{seed}", seed, extra)
    rows = []
    for name, beams in (("demo, greedy", ["--beams", "1"]), ("demo, beam", [])):
        outputs = translate_demo(folder / f"demo-{seed}", scorer.sources, beams)
        rows.append({"system": name, "seed": seed, **scorer(outputs), **ours})
    metrics, outputs = train_peer(folder / f"peer-{seed}", seed, ours["seconds"])
    return [*rows, {"system": "PyTorch, greedy", "seed": seed, **scorer(outputs), **metrics}]


def means(rows: list[dict]) -> list[dict]:
    """Means of each system over the seeds."""
    averages = []
    for system in dict.fromkeys(row["system"] for row in rows):
        system_rows = [row for row in rows if row["system"] == system]
        mean = {name: sum(row[name] for row in system_rows) / len(system_rows) for name in COLUMNS}
        averages.append({"system": system, "seed": "mean", **mean})
    return averages


def line(row: dict) -> str:
    scores = f"{row['bleu']:6.1f}{row['bleu_dissimilar']:6.1f}{row['chrf2']:7.1f}"
    pace = f"{row['target_tokens_per_s']:10,.0f}{row['seconds']:9.0f}" if "seconds" in row else ""
    return f"{row['system']:20}{row.get('seed', ''):>5}{scores}{pace}"


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs") / "demo-benchmark")
    args, extra = parser.parse_known_args()  # `extra` sets fields of the experiment
    args.folder.mkdir(parents=True, exist_ok=True)
    scorer = Scorer()
    print(f"{'':25}  BLEU  BLEU  chrF2  tokens/s  seconds")
    print(f"{'':25}{len(scorer.sources):6}{len(scorer.hard):6}")
    rows = [{"system": "translation memory", **scorer(scorer.memory)}]
    print(line(rows[0]), flush=True)
    for seed in args.seeds:
        for row in compare(args.folder, seed, scorer, extra):
            rows.append(row)
            print(line(row), flush=True)
    averages = means(rows[1:])
    print("\n".join(map(line, averages)))
    frame.keep(args.json, {"rows": rows, "means": averages})


if __name__ == "__main__":
    main()
