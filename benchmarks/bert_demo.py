"""What the BERT demo's pre-training is worth: fine-tuned from it, and from scratch, seed by seed.

    python benchmarks/bert_demo.py --seeds 0 1 2 3 4

The demo's network is pre-trained once, then fine-tuned on the bundled sentences about films from
those weights and from none, equally long, with each seed; test accuracy of both, their mean
difference, and its standard error over the seeds.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import frame

from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

FILE = Path(__file__).resolve().parents[1] / "experiments" / "bert" / "demo.py"


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, help="of pre-training; the demo's own by default")
    args = parser.parse_args()
    whole = load_experiment(FILE)
    first = replace(whole, after=(), steps=args.steps or whole.steps)
    with tempfile.TemporaryDirectory() as place:
        folder, began = Path(place) / "pretrained", time.perf_counter()
        found = train(first, folder).evaluation.metrics
        print(f"pre-training, {time.perf_counter() - began:.0f} s: {found}", flush=True)
        kept = {"pretraining": found, "seconds": time.perf_counter() - began, "runs": []}
        for seed in args.seeds:
            scores = {}
            for each in whole.after:
                task = each.task
                weights = str(folder) if task.weights else None
                task = replace(task, weights=weights, vocabulary=str(folder / "tokenizer"))
                run = replace(each, task=task, seed=seed)
                result = train(run, Path(place) / f"{each.name}_{seed}")
                scores[each.name] = result.evaluation.metrics["test_accuracy"]
            print(f"seed {seed}: {scores}", flush=True)
            kept["runs"].append(scores)
    gains = [run["fine_tuned"] - run["from_scratch"] for run in kept["runs"]]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    for name in ("fine_tuned", "from_scratch"):
        print(f"{name}: mean {statistics.mean(run[name] for run in kept['runs']):.2f} %")
    print(f"gain {statistics.mean(gains):.2f} points, standard error {error:.2f}")
    frame.keep(args.json, kept)


if __name__ == "__main__":
    main()
