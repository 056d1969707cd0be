"""Measures how well relevance maps localise a class in images composed of two classes.

    jaxformers train experiments/vit/demo.py
    python benchmarks/composites.py runs/vit_demo

A composite joins the left half of one bundled test image and the right half of another, of two
different classes; the model classifies both original images correctly. For each of the two classes,
the score is the share of positive relevance that lies in the half of that class. A method that is
not class-specific, such as rollout, scores 50 %.
"""

from __future__ import annotations

from pathlib import Path

import frame
import numpy as np

import jaxformers as jf
from jaxformers.data.images import BundledFashionMnist
from jaxformers.interpret import explain, heat_figure, heat_map, save

METHODS = ("attribution", "generic", "rollout", "attention")
SEED, BLOCK = 0, 50


def composites(model, variables, preprocessing, count: int):
    """Composite images, uint8 `[count, H, W, C]`; their left and right classes, `[count, 2]`."""
    images = BundledFashionMnist("test").open()
    logits = np.asarray(model.apply(variables, preprocessing(list(images.images))))
    correct = np.flatnonzero(logits.argmax(-1) == images.labels)
    rng, pixels, classes = np.random.default_rng(SEED), [], []
    while len(pixels) < count:
        left, right = rng.choice(correct, 2, replace=False)
        if images.labels[left] == images.labels[right]:
            continue
        a, b = images.images[left], images.images[right]
        middle = a.shape[1] // 2
        pixels.append(np.concatenate([a[:, :middle], b[:, middle:]], axis=1))
        classes.append([images.labels[left], images.labels[right]])
    return np.stack(pixels), np.array(classes)


def shares(relevance: np.ndarray, grid: int) -> np.ndarray:
    """Shares of positive relevance in the half of each class, `[n, 2]`.

    Args:
        relevance: `[n, 2, P]`, relevance of the patches for the left and the right class.
        grid: patches along a side of the image. A middle column belongs to neither half.
    """
    positive = np.maximum(relevance, 0.0).reshape(*relevance.shape[:2], grid, grid)
    middle, odd = grid // 2, grid % 2
    left = positive[..., :middle].sum((-1, -2))
    right = positive[..., middle + odd :].sum((-1, -2))
    own = np.stack([left[:, 0], right[:, 1]], axis=1)
    return own / np.maximum(left + right, 1e-12)


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("run")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--picture", help="file for the heat maps of the first composite")
    args = parser.parse_args()
    model, variables = jf.from_pretrained(args.run)
    preprocessing = jf.load_images(args.run)
    pixels, classes = composites(model, variables, preprocessing, args.count)
    images, grid, results = preprocessing(list(pixels)), model.config.grid[0], {}
    for method in METHODS:
        explanations = [
            explain(model, variables, images[i : i + BLOCK], classes[i : i + BLOCK], method)
            for i in range(0, len(images), BLOCK)
        ]
        relevance = np.concatenate([explanation.relevance for explanation in explanations])
        percent = 100 * shares(relevance, grid)
        results[method] = {
            "mean": float(percent.mean()),
            "above half": 100 * float((percent > 50).mean()),
        }
        print(
            f"{method:12} {percent.mean():5.1f} % in the half of the class (standard error "
            f"{percent.std() / np.sqrt(percent.size):.1f}); above 50 % in "
            f"{100 * (percent > 50).mean():.0f} % of the cases",
            flush=True,
        )
        if method == METHODS[0] and args.picture:
            heat = heat_map(relevance[0], (grid, grid), pixels.shape[1:3])
            names = [model.config.class_names[k] for k in classes[0]]
            save(heat_figure(pixels[0] / 255, heat, names), Path(args.picture))
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
