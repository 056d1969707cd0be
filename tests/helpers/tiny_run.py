"""A run of some seconds with checkpoints, evaluations and an export, for tests that disturb it."""

import os
from pathlib import Path

from jaxformers.data.images import Augmentation, BundledFashionMnist, Preprocessing, WholeImage
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Experiment, Linear, Logging
from jaxformers.training.loop import train
from jaxformers.training.reports.run_files import read_metrics

STEPS = 12
TIMES = ("time", "goodput", "compile_seconds", "data_wait", "mfu", "memory_bytes")


def experiment(**changes) -> Experiment:
    """A ViT of one layer; a checkpoint every 2 steps, an evaluation every 4."""
    model = ViTConfig(
        image_size=14, patch_size=7, channels=1, width=8, heads=2, feed_forward=8, layers=1,
        classes=10, dropout=0.1,
    )  # fmt: skip
    grey = dict(channels=1, mean=(0.3,), std=(0.3,))
    task = ImageClassification(
        model=model,
        data=BundledFashionMnist(limit=32),
        dev=BundledFashionMnist("dev", limit=16),
        test=BundledFashionMnist("test", limit=16),
        augmentation=Augmentation(size=14, channels=1, crop=WholeImage()),
        preprocessing=Preprocessing(size=14, **grey),
        rows=8,
    )
    fields = dict(
        steps=STEPS,
        schedule=Linear(peak=1e-2, warmup=2),
        checkpoint=Checkpointing(every=2, keep_last=2, keep_best=1, best="dev_top1"),
        evaluate_every=4,
        average_last=2,
        logging=Logging(every=5),
    )
    return Experiment("tiny_run", task, **(fields | changes))


def run(folder: str, steps: int) -> None:
    """Trains or resumes in a process of its own."""
    os.setsid()
    train(experiment(steps=steps), folder)


def lines(folder: Path) -> list[dict[str, float]]:
    """The records of metrics.jsonl without what a clock or the memory decides."""
    records = read_metrics(folder)
    return [
        {key: value for key, value in record.items() if key not in TIMES and "/s" not in key}
        for record in records
    ]
