"""Draws docs/picture.svg, the picture of the README: one experiment file and where it runs.

python docs/make_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PICTURE = Path(__file__).with_name("picture.svg")
EXPERIMENT = """experiments/vit/jft_h14.py

def experiment():
    return Experiment(
        task=ImageClassification(...),
        steps=1_035_645,
        mesh=MeshConfig(fsdp=8),
    )"""
TARGETS = (
    ("a laptop's CPU", "train --rehearse, check", "the same code in seconds", "#e8f1fb"),
    ("a pod, before it is rented", "plan --topology v5e:16x16", "memory, time, cost", "#fdf1e0"),
    ("a TPU pod", "train", "data x fsdp x tensor; resumes bit for bit", "#e9f6ec"),
)
FAMILIES = ("Transformer", "BERT", "ViT", "MAE", "ResNet, BiT", "CLIP, SigLIP")


def box(axis, x: float, y: float, width: float, height: float, color: str) -> None:
    """A rounded box with its lower left corner at (x, y)."""
    style = "round,pad=0,rounding_size=0.12"
    axis.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=color, edgecolor="#56606b")
    )


def draw() -> Figure:
    """The figure: families on top, the experiment on the left, its three targets on the right."""
    figure = Figure(figsize=(9, 4))
    axis = figure.subplots()
    axis.set(xlim=(0, 9), ylim=(0, 4))
    axis.axis("off")
    figure.subplots_adjust(0, 0, 1, 1)
    for i, family in enumerate(FAMILIES):
        box(axis, 0.1 + 1.475 * i, 3.35, 1.4, 0.4, "#f1edf9")
        axis.text(0.8 + 1.475 * i, 3.55, family, ha="center", va="center", fontsize=9.5)
    note = "one plain module each, equal to the published reference; its weights load and save"
    axis.text(4.5, 3.12, note, ha="center", va="center", fontsize=8.5, color="#56606b")
    box(axis, 0.1, 0.35, 3.7, 2.3, "#f6f7f8")
    axis.text(0.3, 1.5, EXPERIMENT, va="center", fontsize=8.5, family="monospace")
    for (title, command, text, color), y in zip(TARGETS, (1.95, 1.1, 0.25), strict=True):
        box(axis, 4.9, y, 4.0, 0.75, color)
        axis.text(5.05, y + 0.54, title, va="center", fontsize=9.5, weight="bold")
        axis.text(5.05, y + 0.2, command, va="center", fontsize=7.5, family="monospace")
        axis.text(8.8, y + 0.2, text, va="center", ha="right", fontsize=7.5)
        arrow = dict(arrowstyle="-|>", mutation_scale=12, color="#56606b")
        axis.add_patch(FancyArrowPatch((3.8, 1.5), (4.9, y + 0.375), **arrow))
    return figure


if __name__ == "__main__":
    with matplotlib.rc_context({"svg.hashsalt": "jaxformers", "svg.fonttype": "none"}):
        draw().savefig(PICTURE, metadata={"Date": None})
    print(f"wrote {PICTURE}")
