"""Evaluation of every task of a mixture: answers are generated, scored, and drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from jaxformers.data import Batch
from jaxformers.data.mixture import open_mixture
from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.decoding.generation import generate_codes, generate_text, score_options
from jaxformers.evaluation.standard_error import jackknife_error
from jaxformers.fields import CheckedFields, PositiveInt, Seed
from jaxformers.models import UnifiedIO
from jaxformers.sharding import constrain
from jaxformers.tasks.evaluation_loop import round_up_rows
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text_image.base import Picture, Prediction, Sample, TextImageTask
from jaxformers.tasks.text_image.features import normalised_patches

EVALUATION = 43  # what the draws are for
TITLE_WIDTH = 36  # letters
DRAWN = 6  # examples of a task in the report's figure
TABLE = "Each task beside its trivial answer"
TABLE_COLUMNS = (
    "task",
    "metric",
    "model",
    "trivial answer",
    "gain",
    "standard error",
    "gain in standard errors",
)


@dataclass(frozen=True)
class TextImageEvaluator(CheckedFields):
    """The metrics of each task of `task.dev`, beside those of its trivial answer.

    The gain of a task is how much better than the trivial answer its model is, by the metric that
    it is evaluated by; a final evaluation has a table of gains and their standard errors.
    """

    task: Any
    """The `TextImage` that was trained."""
    name: str = "tasks"
    examples: PositiveInt = 64
    """Of each task, evenly spaced among its own."""
    rows: PositiveInt = 64
    """Of a batch."""
    seed: Seed = 0
    """Of the codes of pictures, where they are drawn."""

    def evaluate(self, model, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`dev_TASK_METRIC` and `dev_TASK_trivial_METRIC`.

        When `final` a figure of each task, and `dev_TASK_gain` with `dev_TASK_gain_error`, its
        standard error.
        """
        mixture = open_mixture(self.task.dev)
        store = self.task.rows_of(mixture, processor.tokenizer)
        evaluation, rows = Evaluation({}), [TABLE_COLUMNS]
        for number, (name, examples) in enumerate(mixture.examples.items()):
            indices = evenly_spaced(len(examples), self.examples)
            words = Draws(EVALUATION, number).words(len(indices), store.draws)
            pairs = zip(indices.tolist(), words, strict=True)
            samples = [examples.sample(index, int(row[0])) for index, row in pairs]
            batch = [
                store.row(sample, number, row, f"{name}, example {index:,}")
                for sample, index, row in zip(samples, indices.tolist(), words, strict=True)
            ]
            answers = self._answers(model, variables, processor, examples.task, samples, batch)
            truths = [
                examples.task.truth(processor.tokenizer, sample, row["target_ids"].tolist())
                for sample, row in zip(samples, batch, strict=True)
            ]
            scores = examples.task.metrics(answers, truths)
            trivial_answers = examples.task.trivial(truths)
            trivial = examples.task.metrics(trivial_answers, truths)
            evaluation.metrics |= {f"dev_{name}_{key}": value for key, value in scores.items()}
            evaluation.metrics |= {
                f"dev_{name}_trivial_{key}": value for key, value in trivial.items()
            }
            if final:
                best = examples.task.BEST
                gain, error = gain_over(examples.task, answers, trivial_answers, truths)
                evaluation.metrics |= {f"dev_{name}_gain": gain, f"dev_{name}_gain_error": error}
                ratio = gain / error if error > 0 else None
                rows.append((name, best, scores[best], trivial[best], gain, error, ratio))
                title = f"Task {name}: input, truth, answer"
                evaluation.figures[title] = task_figure(examples.task, samples, answers)
        if final:
            evaluation.tables[TABLE] = rows
        return evaluation

    def _answers(
        self,
        model,
        variables,
        processor: Processor,
        task: TextImageTask,
        samples: Sequence[Sample],
        batch: Sequence[dict[str, np.ndarray]],
    ) -> list[Any]:
        """What the model answers to each sample, read by its task."""
        count = len(batch)
        rows = round_up_rows(min(self.rows, count))
        # Classes are chosen by their probability, so that every answer is one of them.
        options = processor.tokenizer.encode(list(getattr(task, "options", ())))
        answers: list[Any] = []
        for start in range(0, count, rows):
            chosen = np.minimum(np.arange(start, start + rows), count - 1)
            arrays = {name: np.stack([batch[i][name] for i in chosen]) for name in batch[0]}
            if options:
                params = {"params": variables["params"]}
                scores = score_options(model, params, model_inputs(arrays), options)
                predictions = [Prediction(options[best]) for best in scores.argmax(1)]
            else:
                key = jax.random.fold_in(jax.random.key(self.seed), start)
                predictions = predict(self.task, model, variables, arrays, task.OUTPUT, key)
            for sample, prediction in zip(samples[start : start + rows], predictions, strict=False):
                answers.append(task.read(processor.tokenizer, _resized(prediction, sample), sample))
        return answers


def predict(
    task: Any, model, variables, batch: dict[str, np.ndarray], output: str, key: jax.Array
) -> list[Prediction]:
    """A prediction for each row of a batch: text by greedy search, pictures by `task.sampling`.

    Args:
        task: the `TextImage` whose batch it is.
        model: the network.
        variables: of the network.
        batch: as `TextImageRows` gives it.
        output: `text` or `image`.
        key: of the sampling.
    """
    inputs, params = model_inputs(batch), {"params": variables["params"]}
    if output == "text":
        decoded = generate_text(model, params, inputs, task.target_length)
        return [Prediction(row.tolist()) for row in np.asarray(decoded.ids)]
    codes, sampling = task.codes, task.sampling
    decoded = generate_codes(model, params, inputs, key, num_codes=codes, sampling=sampling)
    pictures = decoded_pictures(model, params, np.asarray(decoded.ids))
    return [Prediction(picture=picture) for picture in pictures]


def gain_over(
    task: TextImageTask, answers: Sequence[Any], trivial: Sequence[Any], truths: Sequence[Any]
) -> tuple[float, float]:
    """How much better than trivial answers a model's are, and the standard error of that.

    Args:
        task: whose metric `BEST` is compared.
        answers: of the model.
        trivial: answers to the same samples, which are compared pair by pair.
        truths: of the samples.
    """

    def gain(indices: Int[np.ndarray, "n"]) -> float:
        chosen, reference = (
            task.metrics([side[i] for i in indices], [truths[i] for i in indices])[task.BEST]
            for side in (answers, trivial)
        )
        return reference - chosen if task.LOWEST_IS_BEST else chosen - reference

    count = len(truths)
    return gain(np.arange(count)), jackknife_error(gain, count)


def model_inputs(batch: Batch) -> dict[str, Any]:
    """Arguments of `UnifiedIO.encode` for a batch as `RowBuilder` gives it."""
    return {
        "input_ids": batch["input_ids"],
        "input_mask": batch["input_ids"] > 0,
        "images": normalised_patches(batch["patches"]),
        "image_mask": batch["patch_mask"],
        "image_positions": batch["patch_positions"],
    }


def decoded_pictures(model: UnifiedIO, variables: Any, codes: Int[np.ndarray, "B C"]) -> Any:
    """Pictures uint8 `[B, R, R, 3]` of codes."""
    pixels = np.asarray(_decoder(model)(variables, codes))
    return np.clip((pixels + 1) * 127.5, 0, 255).round().astype(np.uint8)


@lru_cache(maxsize=4)
def _decoder(model: UnifiedIO):
    @jax.jit
    def run(variables, codes):
        images = model.apply(variables, codes, method="decode_image")
        return constrain(images, None, None, None, None)  # whole on every host

    return run


def _resized(prediction: Prediction, sample: Sample) -> Prediction:
    """A picture in the sample's size: the padding cut off, then the nearest pixels."""
    if prediction.picture is None:
        return prediction
    return Prediction(prediction.ids, in_size(prediction.picture, sample.size))


def in_size(picture: Picture, size: tuple[int, int]) -> Picture:
    """A square picture, its padding at the bottom and right cut off, in `size` (height, width)."""
    height, width = size
    ratio = len(picture) / max(height, width)
    cut = picture[: max(int(ratio * height), 1), : max(int(ratio * width), 1)]
    resized = Image.fromarray(cut).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized)


def task_figure(task: TextImageTask, samples: Sequence[Sample], answers: Sequence[Any]) -> Figure:
    """Some samples in columns: input with its prompt, truth, answer."""
    count = min(DRAWN, len(samples))
    figure = Figure(figsize=(1.7 * count, 5.2), layout="constrained")
    axes = figure.subplots(3, count, squeeze=False)
    for column, (sample, answer) in enumerate(zip(samples[:count], answers, strict=False)):
        for axis in axes[:, column]:
            axis.set(xticks=[], yticks=[])
        if sample.image is not None:
            axes[0, column].imshow(sample.image)
            if sample.hidden is not None:  # the model reads nothing there
                x1, y1, x2, y2 = sample.hidden
                corner, blank = (x1 - 0.5, y1 - 0.5), dict(facecolor="white", edgecolor="gray")
                axes[0, column].add_patch(Rectangle(corner, x2 - x1, y2 - y1, **blank))
        # Matplotlib's own wrapping goes by the figure's width, not by the column's.
        title = textwrap.wrap(sample.prompt, TITLE_WIDTH, max_lines=3, placeholder=" ...")
        axes[0, column].set_title("\n".join(title), fontsize=5, parse_math=False)
        truth = sample.target if task.OUTPUT == "image" else sample.truth
        truth = truth[0] if isinstance(truth, tuple) and isinstance(truth[0], str) else truth
        task.show(axes[1, column], sample, truth)
        task.show(axes[2, column], sample, answer)
    return figure
