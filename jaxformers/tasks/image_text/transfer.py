"""Evaluators of frozen image features on labelled images ("CLIP", sections 3.1 and 3.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxformers.data.captions import EmojiGroups
from jaxformers.data.images import BundledFashionMnist, LabelledImages, TfdsImages
from jaxformers.errors import ConfigError, DataError
from jaxformers.evaluation.image_metrics import mean_per_class
from jaxformers.evaluation.probes.linear_probe import clip_linear_probe
from jaxformers.evaluation.probes.nearest_neighbours import Metric, Weights, neighbour_scores
from jaxformers.evaluation.probes.standardized_probe import NEIGHBOURS, Split
from jaxformers.evaluation.published.clip import COLUMNS, LINEAR_PROBE, ZERO_SHOT
from jaxformers.evaluation.zero_shot import load_class_prompts
from jaxformers.evaluation.zero_shot.class_prompts import PUBLISHED
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.models import CLIP
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.evaluator import Comparison, Evaluation
from jaxformers.tasks.image_text.image_features import image_features
from jaxformers.tasks.image_text.transfer_figures import neighbours_figure, penalties_figure
from jaxformers.tasks.image_text.zero_shot import TEMPLATE, class_weights, unit_vectors
from jaxformers.tasks.images.image_data import ImageData, open_cached
from jaxformers.tasks.processor import Processor

SHARDED_FROM = 2**26  # bytes of features
METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
WEIGHTS: tuple[Weights, ...] = ("uniform", "distance")
TOP1, MEAN_PER_CLASS = "top1", "mean_per_class"


@dataclass(frozen=True, kw_only=True)
class ZeroShotEvaluator(CheckedFields):
    """Accuracy in percent of classes that are described in words, on the test images.

    A class's vector is the normalised mean of its prompts' unit vectors.
    """

    name: str = "zero_shot"
    test: ImageData | EmojiGroups
    prompts: str = ""
    """Data set whose class names and templates are shipped, or a JSON file of them; they are
    matched to the data's labels by name. Empty: the data's class names, with `template`."""
    templates: str = PUBLISHED
    """Which set of templates."""
    template: str = TEMPLATE
    """Prompt of the data's own class names, with `{}` for the name."""
    truncate: bool = False
    """Whether a prompt with more tokens than the model has positions is cut."""
    rows: PositiveInt = 128
    """Images of a batch."""

    def evaluate(self, model: CLIP, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`test_zero_shot_top1` and `test_zero_shot_mean_per_class`, at the end."""
        if not final:
            return Evaluation({})
        images = open_cached(self.test)
        names, templates = self.class_prompts(images)
        weights = class_weights(
            model, variables, processor.tokenizer, names, templates, truncate=self.truncate
        )
        features, labels = image_features(
            model, variables, processor.preprocessing, images, projected=True, rows=self.rows
        )
        predictions = np.argmax(unit_vectors(features) @ weights.T, axis=1)
        samples = [
            (images.where(i), names[label], names[prediction])
            for i, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
        ]
        note = f"zero-shot: {len(names)} classes, {len(templates)} prompts each"
        return Evaluation(_metrics("test_zero_shot", predictions, labels), samples, [note])

    def class_prompts(self, images: LabelledImages) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Class names in the order of the data's labels, and templates.

        Raises:
            ConfigError: unknown prompts or templates.
            DataError: labels that match no class name.
        """
        if self.prompts:
            prompts = load_class_prompts(self.prompts)
            return prompts.names_for(images.class_names), prompts.template_set(self.templates)
        if self.templates != PUBLISHED:
            raise ConfigError(f"templates {self.templates!r} without prompts: set the prompts")
        return images.class_names or tuple(map(str, range(images.classes))), (self.template,)

    def rehearsal(self) -> ZeroShotEvaluator:
        """Some bundled images with their own class names."""
        test = BundledFashionMnist("test", limit=24)
        return replace(self, test=test, prompts="", templates=PUBLISHED, truncate=True)

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """The paper's zero-shot results on the same test images."""
        return _compare("zero-shot", ZERO_SHOT, self.test, "test_zero_shot", metrics)


@dataclass(frozen=True, kw_only=True)
class LinearProbeEvaluator(CheckedFields):
    """Accuracy in percent of a logistic regression on frozen features ("CLIP", appendix A.3).

    Its penalty is chosen on the development images; it is then fitted on these and the training
    images together. The report draws the accuracy of every penalty that was tried.
    """

    name: str = "linear_probe"
    train: ImageData
    dev: ImageData
    test: ImageData
    projected: bool = False
    """Whether features are those after CLIP's projection; the paper's are those before."""
    normalize: bool = False
    """Whether features are scaled to unit length; the paper's are not."""
    rows: PositiveInt = 128
    """Images of a batch."""

    def evaluate(self, model, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`test_linear_probe_top1`, `..._mean_per_class`, `dev_linear_probe_top1`, the penalty."""
        if not final:
            return Evaluation({})
        sets = _features(self, model, variables, processor, self.projected)
        with _mesh_for(sum(split.features.nbytes for split in sets)) as mesh:
            result = clip_linear_probe(*sets, normalize=self.normalize, mesh=mesh)
        return Evaluation(
            {
                f"test_linear_probe_{TOP1}": result.accuracy,
                f"test_linear_probe_{MEAN_PER_CLASS}": result.mean_per_class,
                f"dev_linear_probe_{TOP1}": result.dev_accuracy,
                "linear_probe_penalty": result.penalty,
            },
            figures={"Search of the penalty": penalties_figure(result)},
        )

    def rehearsal(self) -> LinearProbeEvaluator:
        """The task on a few bundled images."""
        return replace(self, **_rehearsed_sets())

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """The paper's linear probes on the same test images."""
        return _compare("linear probe", LINEAR_PROBE, self.test, "test_linear_probe", metrics)


@dataclass(frozen=True, kw_only=True)
class NeighbourEvaluator(CheckedFields):
    """Accuracy in percent of the vote of the K nearest training and development images.

    The number of neighbours, their distance and the weights of their votes are chosen on the
    development images; the report lists and draws all results on the test images.
    """

    name: str = "nearest_neighbours"
    train: ImageData
    dev: ImageData
    test: ImageData
    numbers: tuple[PositiveInt, ...] = NEIGHBOURS
    """The values of K."""
    projected: bool = True
    """Whether features are those after CLIP's projection."""
    rows: PositiveInt = 128
    """Images of a batch."""

    def evaluate(self, model, variables, processor: Processor, *, final: bool) -> Evaluation:
        """`test_knn_top1`, `test_knn_mean_per_class`, `dev_knn_top1` and `knn_neighbours`."""
        if not final:
            return Evaluation({})
        train, dev, test = _features(self, model, variables, processor, self.projected)
        both = Split(*(np.concatenate(arrays) for arrays in zip(train, dev, strict=True)))
        numbers = [number for number in self.numbers if number <= len(train.labels)]
        if not numbers:
            raise DataError(
                f"{len(train.labels)} training images are fewer than any of {self.numbers} "
                "neighbours"
            )
        dev_scores, test_scores = (
            {
                (metric, weights, number): score
                for metric in METRICS
                for weights in WEIGHTS
                for number, score in neighbour_scores(
                    bank, queries, numbers, metric=metric, weights=weights
                ).items()
            }
            for bank, queries in ((train, dev), (both, test))
        )
        best = max(dev_scores, key=lambda setting: dev_scores[setting].accuracy)
        metrics = {
            f"test_knn_{TOP1}": test_scores[best].accuracy,
            f"test_knn_{MEAN_PER_CLASS}": test_scores[best].mean_per_class,
            f"dev_knn_{TOP1}": dev_scores[best].accuracy,
            "knn_neighbours": float(best[2]),
        }
        lines = [
            f"K={number}, {metric}, {weights}: top-1 {score.accuracy:.2f} %, mean per class "
            f"{score.mean_per_class:.2f} %"
            for (metric, weights, number), score in test_scores.items()
        ]
        note = f"nearest neighbours: {best[0]} distance, {best[1]} votes, K={best[2]} chosen on dev"
        return Evaluation(
            metrics,
            notes=[note],
            figures={"Accuracy by the number of neighbours": neighbours_figure(test_scores)},
            lists={"Nearest neighbours, test set": lines},
        )

    def rehearsal(self) -> NeighbourEvaluator:
        """The task on a few bundled images."""
        return replace(self, **_rehearsed_sets(), numbers=self.numbers[:2])


def _features(evaluator, model, variables, processor: Processor, projected: bool) -> list[Split]:
    """Features of the evaluator's training, development and test images."""
    return [
        image_features(
            model,
            variables,
            processor.preprocessing,
            open_cached(source),
            projected=projected,
            rows=evaluator.rows,
        )
        for source in (evaluator.train, evaluator.dev, evaluator.test)
    ]


def _rehearsed_sets() -> dict[str, ImageData]:
    return {
        "train": BundledFashionMnist(limit=64),
        "dev": BundledFashionMnist("dev", limit=24),
        "test": BundledFashionMnist("test", limit=24),
    }


def _metrics(prefix: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy and mean per class in percent."""
    return {
        f"{prefix}_{TOP1}": 100 * float(np.mean(predictions == labels)),
        f"{prefix}_{MEAN_PER_CLASS}": 100 * mean_per_class(predictions, labels),
    }


@contextlib.contextmanager
def _mesh_for(size: int) -> Iterator[Mesh | None]:
    """The mesh in force, to shard features of `size` bytes over; else one device of this host."""
    mesh = jax.sharding.get_mesh()
    if not mesh.empty and size >= SHARDED_FROM:
        yield mesh
        return
    # An iteration's product takes less time than the devices' sum of its result.
    with jax.set_mesh(make_mesh(MeshConfig(), jax.local_devices()[:1])):
        yield None


def _compare(
    what: str,
    published: Mapping[str, Mapping[str, float]],
    test: Any,
    prefix: str,
    metrics: Mapping[str, Any],
) -> list[Comparison]:
    """A table of published results on the test set, if the paper has it."""
    dataset = test.name.partition(":")[0] if isinstance(test, TfdsImages) else ""
    if dataset not in COLUMNS or f"{prefix}_{TOP1}" not in metrics:
        return []
    column, measure = COLUMNS[dataset]
    name = "mean per class" if measure == MEAN_PER_CLASS else "top-1"
    rows = [(model, (scores[column],)) for model, scores in published.items() if column in scores]
    ours = (metrics.get(f"{prefix}_{measure}"),)
    note = f"The paper reports {name} accuracy of {column}, on the test set."
    title = f"Beside published results, {what} on {column}"
    return [Comparison(title, (f"{column}, {name} (%)",), rows, ours, note)]
