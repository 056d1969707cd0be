"""The Unified-IO demo over several seeds: each task's gain over its trivial answer.

    python benchmarks/unified_io_demo.py --folder runs/seeds --seeds 0 1 2

Each seed trains both runs as `jaxformers train experiments/unified_io/demo.py` does, in
FOLDER/SEED. One that has finished is not trained again and one that was interrupted is resumed, so
seeds can run side by side, and a last call with all of them prints the table. A gain is in the
task's metric, its error is the standard error over the 256 held-out examples, and the bar is that
every gain is above three of its errors.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import frame

from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train
from jaxformers.training.reports.run_files import read_metrics
from jaxformers.training.run_directory import was_finished

FILE = Path(__file__).resolve().parents[1] / "experiments" / "unified_io" / "demo.py"


def seed_results(seed: int, folder: Path) -> dict[str, float]:
    """Final metrics of both runs of a seed, which are trained first unless they have finished."""
    experiment = load_experiment(FILE)
    (tasks,) = experiment.after
    experiment = replace(experiment, seed=seed, after=(replace(tasks, seed=seed),))
    folder /= str(seed)
    if not was_finished(folder, experiment) and not train(experiment, folder).finished:
        raise SystemExit(f"seed {seed} was interrupted; the same command resumes it")
    metrics = {}
    for run in (folder, folder / tasks.name):
        for record in read_metrics(run):
            metrics |= {name.removeprefix("eval/"): value for name, value in record.items()}
    return metrics


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
        quality = f"{result['dev_psnr']:.1f} dB, {result['dev_codes_used']:.1%} of the codes"
        print(f"seed {seed}: VQGAN {quality}; nearest to its trivial answer: {weakest}")
    frame.keep(args.json, dict(zip(args.seeds, results, strict=True)))


if __name__ == "__main__":
    main()
