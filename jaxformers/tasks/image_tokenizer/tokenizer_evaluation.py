"""Evaluation of an image tokenizer: PSNR, SSIM, codes in use, and a grid of reconstructions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from jaxformers.data.images import ImageRows, Preprocessing
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.evaluation.image_quality import WINDOW, psnr, ssim
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.models import VQGAN
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.images.image_data import ImageData, open_cached
from jaxformers.tasks.processor import Processor

DRAWN_IMAGES = 8
CAPTION = "Images and their reconstructions"


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerEvaluator(CheckedFields):
    """Reconstruction of all development images.

    `dev_psnr` in decibels and `dev_ssim` are means over images of pixels in 0..1, rounded to 256
    levels; `dev_codes_used` is the share of the codes that occur, `dev_perplexity` that of their
    distribution.
    """

    name: str = "image tokenizer"
    dev: ImageData | None
    preprocessing: Preprocessing
    rows: PositiveInt = 12
    """Images of a batch."""

    def evaluate(
        self, model: VQGAN, variables: dict[str, Any], processor: Processor, *, final: bool
    ) -> Evaluation:
        """The metrics and, when `final`, a figure; nothing without development images."""
        if self.dev is None:
            return Evaluation({})
        store = ImageRows(open_cached(self.dev), self.preprocessing)
        run, rows = _program(model, self.preprocessing), round_up_rows(min(self.rows, len(store)))
        counts = np.zeros(model.config.n_embed, np.int64)
        decibels, similarities, drawn = [], [], []
        for batch, count in every_row(store, rows):
            painted, codes = (
                np.asarray(array)[:count] for array in run(variables, batch["images"])
            )
            originals = batch["images"][:count]
            counts += np.bincount(codes.reshape(-1), minlength=len(counts))
            pixels = painted.astype(np.float32) / 255, originals.astype(np.float32) / 255
            decibels += psnr(*pixels).tolist()
            if min(originals.shape[1:3]) >= WINDOW:
                similarities += ssim(*pixels).tolist()
            missing = DRAWN_IMAGES - sum(len(pair[0]) for pair in drawn)
            drawn.append((originals[:missing], painted[:missing]))
        metrics = {
            "dev_psnr": float(np.mean(decibels)),
            "dev_codes_used": float((counts > 0).mean()),
            "dev_perplexity": perplexity(counts),
        }
        if similarities:
            metrics["dev_ssim"] = float(np.mean(similarities))
        if not final:
            return Evaluation(metrics)
        originals, painted = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        return Evaluation(metrics, figures={CAPTION: reconstruction_figure(originals, painted)})


def perplexity(counts: Int[np.ndarray, "V"]) -> float:
    """exp of the entropy of the codes' distribution: their number, if all are as frequent."""
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def reconstruction_figure(
    originals: Float[np.ndarray, "B H W C"] | np.ndarray, painted: np.ndarray
) -> Figure:
    """A grid: images in the first row, their reconstructions below.

    Args:
        originals, painted: uint8 `[B, H, W, C]`.
    """
    columns = len(originals)
    figure = Figure(figsize=(1.4 * columns, 3.0), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for row, (title, images) in enumerate((("image", originals), ("reconstruction", painted))):
        for axis, image in zip(axes[row], images, strict=True):
            axis.imshow(np.broadcast_to(image, (*image.shape[:2], 3)))
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row][0].set_ylabel(title)
    return figure


@lru_cache(maxsize=2)
def _program(model: VQGAN, preprocessing: Preprocessing):
    @jax.jit
    def run(variables, images):
        outputs = model.apply(variables, preprocessing.normalised(images), method="outputs")
        pixels = jnp.round(127.5 * (jnp.clip(outputs.images, -1.0, 1.0) + 1.0)).astype(jnp.uint8)
        return constrain(pixels, None, None, None, None), constrain(
            outputs.quantized.codes, None, None, None
        )

    return run
