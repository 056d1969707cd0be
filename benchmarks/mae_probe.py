"""Probes the features of a masked autoencoder and of the same encoder with random weights.

    jaxformers train experiments/mae/demo.py
    python benchmarks/mae_probe.py runs/mae_demo

The features of an unmasked image are its class token and the mean of its patch tokens,
concatenated. The probes are logistic regression and k nearest neighbours on the bundled
Fashion-MNIST, with the regularisation and k chosen on the development images.
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
    example = np.zeros((1, side, side, channels), np.float32)
    noise = np.zeros((1, model.config.encoder.num_patches), np.float32)
    fresh = jax.jit(lambda: model.init(jax.random.key(1), example, noise))()
    encode = jax.jit(lambda variables, images: model.apply(variables, images, method="features"))

    def features(variables, split: str) -> Split:
        images = BundledFashionMnist(split).open()
        pixels = preprocessing(list(images.images))
        outputs = [encode(variables, pixels[i : i + ROWS]) for i in range(0, len(pixels), ROWS)]
        tokens = np.concatenate([np.asarray(output) for output in outputs])
        return Split(np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], 1), images.labels)

    results = {}
    for name, weights in (("trained", variables), ("random", fresh)):
        sets = [features(weights, split) for split in ("train", "dev", "test")]
        linear, nearest = linear_probe(*sets, STRENGTHS), nearest_neighbours(*sets)
        results[name] = {"linear": linear.accuracy, "nearest": nearest.accuracy}
        print(
            f"{name:8} linear {linear.accuracy:.2f} %, {nearest.chosen} nearest neighbours "
            f"{nearest.accuracy:.2f} %",
            flush=True,
        )
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
