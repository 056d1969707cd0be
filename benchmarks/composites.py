"""Whether relevance falls on the half of a picture that the class asked for is in.

    jaxformers train experiments/vit/demo.py
    python benchmarks/composites.py runs/vit_demo

A composite is the left half of one bundled test picture and the right half of another, of two
classes that the model each names rightly when whole. For both classes, the share of the positive
relevance that lies in the class's half; 50 % is what a method gives that does not tell classes
apart, such as rollout, by nature.
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
    """Pixels uint8 `[count, H, W, C]` and the two classes `[count, 2]`, left and right."""
    images = BundledFashionMnist("test").open()
    logits = np.asarray(model.apply(variables, preprocessing(list(images.images))))
    known = np.flatnonzero(logits.argmax(-1) == images.labels)
    rng, made, classes = np.random.default_rng(SEED), [], []
    while len(made) < count:
        left, right = rng.choice(known, 2, replace=False)
        if images.labels[left] == images.labels[right]:
            continue
        a, b = images.images[left], images.images[right]
        middle = a.shape[1] // 2
        made.append(np.concatenate([a[:, :middle], b[:, middle:]], axis=1))
        classes.append([images.labels[left], images.labels[right]])
    return np.stack(made), np.array(classes)


def shares(relevance: np.ndarray, grid: int) -> np.ndarray:
    """Of `[n, 2, P]` for the left and the right class: the share in its own half, `[n, 2]`."""
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
    parser.add_argument("--picture", help="file for the first four composites' heat maps")
    args = parser.parse_args()
    model, variables = jf.from_pretrained(args.run)
    preprocessing = jf.load_images(args.run)
    pixels, classes = composites(model, variables, preprocessing, args.count)
    images, grid, found = preprocessing(list(pixels)), model.config.grid[0], {}
    for method in METHODS:
        parts = [
            explain(model, variables, images[at : at + BLOCK], classes[at : at + BLOCK], method)
            for at in range(0, len(images), BLOCK)
        ]
        relevance = np.concatenate([each.relevance for each in parts])
        own = 100 * shares(relevance, grid)
        found[method] = {"mean": float(own.mean()), "above half": 100 * float((own > 50).mean())}
        print(
            f"{method:12} {own.mean():5.1f} % in the right half (standard error "
            f"{own.std() / np.sqrt(own.size):.1f}); above 50 % in {100 * (own > 50).mean():.0f} % "
            "of the cases",
            flush=True,
        )
        if method == METHODS[0] and args.picture:
            heat = heat_map(relevance[0], (grid, grid), pixels.shape[1:3])
            names = [model.config.class_names[k] for k in classes[0]]
            save(heat_figure(pixels[0] / 255, heat, names), Path(args.picture))
    frame.keep(args.json, found)


if __name__ == "__main__":
    main()
