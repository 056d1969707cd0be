"""Results on pictures that runs are held against: "ViT", tables 2, 5 and 9, and its peers'."""

from __future__ import annotations

from typing import NamedTuple

# TFDS name of a test set -> column.
SETS = {
    "imagenet2012": "ImageNet",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "oxford_iiit_pet": "Pets",
    "oxford_flowers102": "Flowers",
}


class TransferRow(NamedTuple):
    """Top-1 accuracies in percent of one model, fine-tuned; None where not published."""

    model: str
    scores: dict[str, float]
    core_days: float | None = None
    """TPUv3-core-days of pre-training."""


def _row(model: str, scores: str, core_days: float | None = None) -> TransferRow:
    names = ("ImageNet", "ReaL", "CIFAR-10", "CIFAR-100", "Pets", "Flowers")
    columns = zip(names, scores.split(), strict=True)
    return TransferRow(model, {n: float(v) for n, v in columns if v != "-"}, core_days)


TRANSFER = (
    # Table 2: the mean of three runs, at 512 pixels (ViT-L/16) and 518 (H/14) on ImageNet.
    _row("ViT-H/14, JFT", "88.55 90.72 99.50 94.55 97.56 99.68", 2500),
    _row("ViT-L/16, JFT", "87.76 90.54 99.42 93.90 97.32 99.74", 680),
    _row("ViT-L/16, ImageNet-21k", "85.30 88.62 99.15 93.25 94.67 99.61", 230),
    _row("BiT-L (ResNet-152x4), JFT", "87.54 90.54 99.37 93.51 96.62 99.63", 9900),
    _row("Noisy Student (EfficientNet-L2)", "88.4 90.55 - - - -", 12_300),
    # Table 5: at 384 pixels, without averaging.
    _row("ViT-B/16, ImageNet-21k", "83.97 88.35 98.95 91.67 94.43 99.38"),
    _row("ViT-B/32, ImageNet-21k", "81.28 86.63 98.79 91.97 93.02 99.11"),
    _row("ViT-B/16, ImageNet", "77.91 83.57 98.13 87.13 93.81 89.49"),
    _row("ViT-B/32, ImageNet", "73.38 79.56 97.77 86.31 92.04 85.43"),
    # "Masked Autoencoders", table 3: fine-tuned at 224 pixels.
    _row("MAE ViT-B/16, ImageNet", "83.6 - - - - -"),
    _row("MAE ViT-L/16, ImageNet", "85.9 - - - - -"),
)

# Table 9, in the order of `data.images.vtab.TASKS`.
_VTAB_ROWS = {
    "ViT-H/14, JFT": "95.3 85.5 75.2 99.7 97.2 65.0 88.9 83.3 96.7 91.4 76.6 91.7 63.8 53.1 79.4 "
    "63.3 84.5 33.2 51.2",
    "ViT-L/16, ImageNet-21k": "90.8 84.1 74.1 99.3 92.7 61.0 80.9 82.5 95.6 85.2 75.3 70.3 56.1 "
    "41.9 74.7 64.9 79.9 30.5 41.7",
}


def published_vtab(tasks: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Table 9: each model's top-1 accuracy in percent of the 19 `tasks`, in the paper's order."""
    order = (*tasks[:7], "patch_camelyon", "eurosat", "resisc45", "retinopathy", *tasks[11:])
    return {
        model: dict(zip(order, map(float, scores.split()), strict=True))
        for model, scores in _VTAB_ROWS.items()
    }
