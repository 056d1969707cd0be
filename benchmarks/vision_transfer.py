"""Compares transfer learning with training from scratch: a small ResNet-34 on Fashion-MNIST.

    python benchmarks/vision_transfer.py --seeds 0 1 2

A ResNet-34 of one eighth of its width is pretrained on the first five classes of the bundled
Fashion-MNIST. Then the experiment of `experiments/resnet/pets_resnet34.py`, with its optimizer,
schedule and label smoothing and with a new head, trains for equally many epochs on few images of
the other five classes: once from the pretrained weights and once from scratch.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import frame

from jaxformers.data.images import Augmentation, BundledFashionMnist, PaddedCrop, Preprocessing
from jaxformers.models import ResNetConfig
from jaxformers.training import Checkpointing, Experiment
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

FILE = Path(__file__).resolve().parents[1] / "experiments" / "resnet" / "pets_resnet34.py"
MODEL = ResNetConfig.resnet34(image_size=28, channels=1, classes=5, width=8, stem="small")


def learning(
    name: str, classes: tuple[int, ...], weights: str | None, limit: int | None, epochs: float
) -> Experiment:
    """The Pets experiment on some classes of the bundled Fashion-MNIST."""
    pets = load_experiment(FILE)
    task = replace(
        pets.task,
        model=MODEL,
        data=BundledFashionMnist(classes=classes, limit=limit),
        augmentation=Augmentation(28, channels=1, crop=PaddedCrop(2)),
        preprocessing=Preprocessing(28, channels=1, mean=(0.286,), std=(0.353,)),
        weights=weights,
        workers=0,
    )
    return replace(
        pets,
        name=name,
        task=task,
        epochs=epochs,
        evaluate_every=0,
        checkpoint=Checkpointing(every=100_000, keep_last=1),
    )


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--limit", type=int, default=500, help="training images of the five new classes"
    )
    parser.add_argument("--epochs", type=float, default=6, help="epochs on the first five classes")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        first = learning("first", (0, 1, 2, 3, 4), None, None, args.epochs)
        schedule = replace(first.schedule, peak=3e-3)
        train(replace(first, schedule=schedule), Path(folder) / "first")
        for seed in args.seeds:
            scores = {}
            for name, weights in (("transfer", str(Path(folder) / "first")), ("scratch", None)):
                run = learning(name, (5, 6, 7, 8, 9), weights, args.limit, 10)
                result = train(replace(run, seed=seed), Path(folder) / f"{name}_{seed}")
                scores[name] = result.evaluation.metrics["test_top1"]
            print(f"seed {seed}: {scores}", flush=True)
            results.append(scores)
    for name in ("transfer", "scratch"):
        print(f"{name}: mean {statistics.mean(scores[name] for scores in results):.2f} %")
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
