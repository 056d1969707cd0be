"""The Unified-IO demo over several seeds: each task's gain over its trivial answer.

    python benchmarks/unified_io_demo.py --folder runs/seeds --seeds 0 1 2

Each seed trains both runs as `jaxformers train experiments/unified_io/demo.py` does, in
FOLDER/SEED; one that has finished is not trained again, so seeds can run side by side and a last
call with all of them prints the table. A gain is in the task's metric, its error is the standard
error over the 256 held-out examples, and a bar is that every gain is above three of its errors.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import frame

from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

FILE = Path(__file__).resolve().parents[1] / "experiments" / "unified_io" / "demo.py"


def seed_results(seed: int, folder: Path) -> dict[str, float]:
    """Final metrics of both runs of a seed, and their seconds on this machine."""
    results = folder / f"{seed}.json"
    if not results.exists():
        experiment = load_experiment(FILE)
        after = tuple(replace(run, seed=seed) for run in experiment.after)
        start = time.perf_counter()
        vqgan = train(replace(experiment, seed=seed, after=after), folder / str(seed))
        seconds = {"seconds": time.perf_counter() - start}
        tasks = vqgan.after[-1].evaluation.metrics
        results.write_text(json.dumps({**vqgan.evaluation.metrics, **tasks, **seconds}, indent=1))
    return json.loads(results.read_text())


def table(tasks: dict[str, str], results: list[dict[str, float]]) -> list[str]:
    """Markdown: of each task its metric and trivial answer (means), and each seed's gain."""
    lines = ["| task | metric | model | trivial | gain of each seed | in standard errors |"]
    lines.append("|---|---|---|---|---|---|")
    for name, metric in tasks.items():
        model, trivial = (
            statistics.mean(result[f"dev_{name}_{key}"] for result in results)
            for key in (metric, f"trivial_{metric}")
        )
        pairs = [
            (result[f"dev_{name}_gain"], result[f"dev_{name}_gain_error"]) for result in results
        ]
        gains = ", ".join(f"{gain:.3g}" for gain, _ in pairs)
        ratios = ", ".join(f"{gain / error:.1f}" for gain, error in pairs)
        lines.append(f"| {name} | {metric} | {model:.4g} | {trivial:.4g} | {gains} | {ratios} |")
    return lines


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, required=True, help="of the runs")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    dev = load_experiment(FILE).after[-1].task.dev
    tasks = {entry.name: entry.task.BEST for entry in dev.entries}
    results = [seed_results(seed, args.folder) for seed in args.seeds]
    print("\n".join(table(tasks, results)))
    for seed, result in zip(args.seeds, results, strict=True):
        weakest = min(
            tasks, key=lambda name: result[f"dev_{name}_gain"] / result[f"dev_{name}_gain_error"]
        )
        print(
            f"seed {seed}: {result['seconds'] / 60:.0f} min, VQGAN {result['dev_psnr']:.1f} dB, "
            f"{result['dev_codes_used']:.1%} of the codes; nearest to its trivial answer: {weakest}"
        )
    frame.keep(args.json, dict(zip(args.seeds, results, strict=True)))


if __name__ == "__main__":
    main()
