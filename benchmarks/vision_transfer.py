"""What a ResNet-34 of five classes brings to five others, beside the same from scratch.

    python benchmarks/vision_transfer.py --seeds 0 1 2

A network of ResNet-34's shape, an eighth as wide, learns the first five classes of the bundled
Fashion-MNIST. Then it learns the other five from few pictures by the very experiment of
`experiments/resnet/pets_resnet34.py`: the head replaced, its optimizer, schedule, smoothing and
epochs, once from those weights and once from none, equally long.
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
    """The run of the Pets, on some classes of the bundled pictures."""
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
    parser.add_argument("--limit", type=int, default=500, help="pictures of the five new classes")
    parser.add_argument("--epochs", type=float, default=6, help="on the first five")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as place:
        first = learning("first", (0, 1, 2, 3, 4), None, None, args.epochs)
        schedule = replace(first.schedule, peak=3e-3)
        train(replace(first, schedule=schedule), Path(place) / "first")
        for seed in args.seeds:
            scores = {}
            for name, weights in (("transfer", str(Path(place) / "first")), ("scratch", None)):
                run = learning(name, (5, 6, 7, 8, 9), weights, args.limit, 10)
                result = train(replace(run, seed=seed), Path(place) / f"{name}_{seed}")
                scores[name] = result.evaluation.metrics["test_top1"]
            print(f"seed {seed}: {scores}", flush=True)
            found.append(scores)
    for name in ("transfer", "scratch"):
        print(f"{name}: mean {statistics.mean(each[name] for each in found):.2f} %")
    frame.keep(args.json, found)


if __name__ == "__main__":
    main()
