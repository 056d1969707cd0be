"""What a masked autoencoder's features are worth, beside those of random weights.

    jaxformers train experiments/mae/demo.py
    python benchmarks/mae_probe.py runs/mae_demo

The class token and the mean of the patches' tokens of whole bundled pictures, side by side, under
logistic regression and under k nearest neighbours, each chosen on the development pictures.
"""

from __future__ import annotations

import frame
import jax
import numpy as np

import jaxformers as jf
from jaxformers.data.images import BundledFashionMnist
from jaxformers.evaluation.probes.standardized_probe import Split, linear_probe, nearest_neighbours

ROWS, STRENGTHS = 500, (1e-3, 1e-2, 1e-1)


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("run")
    args = parser.parse_args()
    model, variables = jf.from_pretrained(args.run)
    preprocessing = jf.load_images(args.run)
    side, channels = model.config.image_size, model.config.channels
    shapes = np.zeros((1, side, side, channels), np.float32)
    noise = np.zeros((1, model.config.encoder.num_patches), np.float32)
    fresh = jax.jit(lambda: model.init(jax.random.key(1), shapes, noise))()
    run = jax.jit(lambda variables, images: model.apply(variables, images, method="features"))

    def features(variables, split: str) -> Split:
        images = BundledFashionMnist(split).open()
        pixels = preprocessing(list(images.images))
        parts = [run(variables, pixels[at : at + ROWS]) for at in range(0, len(pixels), ROWS)]
        tokens = np.concatenate([np.asarray(part) for part in parts])
        return Split(np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], 1), images.labels)

    found = {}
    for name, each in (("trained", variables), ("random", fresh)):
        sets = [features(each, split) for split in ("train", "dev", "test")]
        linear, nearest = linear_probe(*sets, STRENGTHS), nearest_neighbours(*sets)
        found[name] = {"linear": linear.accuracy, "nearest": nearest.accuracy}
        print(
            f"{name:8} linear {linear.accuracy:.2f} %, {nearest.chosen} nearest neighbours "
            f"{nearest.accuracy:.2f} %",
            flush=True,
        )
    frame.keep(args.json, found)


if __name__ == "__main__":
    main()
