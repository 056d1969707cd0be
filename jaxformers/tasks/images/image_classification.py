"""Classes of images ("ViT", section 4.1; "BiT", section 3; "MAE", appendix A.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Union

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxformers.data import Batch
from jaxformers.data.images import (
    Augmentation,
    BundledFashionMnist,
    ImagePlan,
    ImageRows,
    LabelledImages,
    Preprocessing,
)
from jaxformers.data.images.sources.real_labels import RealLabels
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import NonNegativeFloat, NonNegativeInt, PositiveInt, Rate
from jaxformers.layers import Execution
from jaxformers.layers.position_resize import PositionResize
from jaxformers.models.problem_type import ProblemType
from jaxformers.pretrained import load_pretrained, registry
from jaxformers.pretrained.image_backbone import image_backbone_variables
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Task, Variables
from jaxformers.tasks.evaluator import Comparison
from jaxformers.tasks.images.image_comparison import (
    compare_vtab_runs,
    compare_with_published_images,
)
from jaxformers.tasks.images.image_data import (
    ImageData,
    ImageTaskData,
    check_labels,
    check_sizes,
    passed_over_lines,
    picture_shape,
    rehearsed,
)
from jaxformers.tasks.images.image_evaluation import EvaluationSet, ImageEvaluator
from jaxformers.tasks.images.image_losses import Objective, image_loss, mixed
from jaxformers.tasks.processor import Processor

# The configurations of all families that classify images.
ImageModel = Union[registry.configs_for("classify_images")]  # noqa: UP007
SMALL = 1e-3  # so small that a norm sees a variance near its epsilon


@dataclass(frozen=True)
class ImageClassification(Task):
    """Learns to name what is seen."""

    unit: ClassVar[str] = "images"
    verb: ClassVar[str] = "classify-image"

    model: ImageModel
    """Its `classes` are as many as the data's."""
    data: ImageData
    """Training pictures."""
    augmentation: Augmentation
    """How training pictures are cut, mirrored and distorted; as large as the model takes them."""
    preprocessing: Preprocessing
    """How others are; its mean and deviation normalise training pictures too."""
    dev: ImageData | None = None
    """Development pictures; None: the data's own, where it has such a set."""
    test: ImageData | None = None
    """Judged at the end; None: the data's own."""
    real: RealLabels | None = None
    """Every right class of the test pictures, ImageNet's; None: their single labels alone."""
    rows: PositiveInt = 128
    """Pictures in a batch."""
    objective: Objective = "softmax"
    """Cross-entropy, or the sum of the classes' binary cross-entropies; the trained model then has
    a sigmoid probability for each class (`problem_type`)."""
    multi_label: bool = False
    """Whether an image has any number of labels; needs the sigmoid objective."""
    smoothing: Rate = 0.0
    """Mass of each target spread over all classes."""
    mixup: NonNegativeFloat = 0.0
    """Parameter of mixup's proportions; 0: none."""
    cutmix: NonNegativeFloat = 0.0
    """Parameter of cutmix's; a batch takes either where both are asked for."""
    weights: str | None = None
    """Weights to start from, all but the head: a published folder or file, a run, or a hub's name;
    None: none."""
    resize_positions: PositionResize = "zoom"
    """How a table of positions of another image size is resized: Google's way or PyTorch's."""
    workers: NonNegativeInt = 0
    """Processes that prepare batches; 0: threads."""

    def __post_init__(self):
        super().__post_init__()
        check_sizes(self)
        if self.model.classes < 1:
            raise ConfigError("a model without classes cannot be taught any: set its classes")
        self._check_objective()

    def _check_objective(self) -> None:
        """Raises ConfigError where the objective does not suit the labels or the model."""
        if self.multi_label and self.objective != "sigmoid":
            raise ConfigError("images with several labels need --task.objective sigmoid")
        if self.multi_label and self.smoothing:
            raise ConfigError("smoothing is of single labels: set --task.smoothing 0")
        stated, trained = self.model.problem_type, self._problem_type
        if stated not in (None, trained):
            raise ConfigError(
                f"the objective {self.objective!r} does not train the model's problem_type "
                f"{stated!r}: leave out --task.model.problem-type"
            )
        if self.model.classes == 1 and self.objective == "softmax":
            raise ConfigError(
                "the softmax of a single class is always 1: set --task.objective sigmoid"
            )

    @property
    def _problem_type(self) -> ProblemType:
        sigmoid = self.objective == "sigmoid"
        return "multi_label_classification" if sigmoid else "single_label_classification"

    @property
    def best(self) -> str:
        """Top-1 accuracy, or mean average precision, on the development set where there is one."""
        metric = "dev_mean_average_precision" if self.multi_label else "dev_top1"
        return metric if self.dev or self.data.other("dev") else ""

    def published(self, metrics: Mapping[str, Any]) -> list[Comparison]:
        """Fine-tuned models of the papers on the same test set."""
        return compare_with_published_images(self.test or self.data.other("test"), metrics)

    def together(self, results):
        """VTAB's mean and its three groups', once all 19 tasks have run."""
        return compare_vtab_runs(
            [(task.data, metrics) for task, metrics in results if hasattr(task, "data")]
        )

    # ------------------------------------------------------------------ model and loss

    def module(self, execution: Execution) -> nn.Module:
        """The network; its configuration says how its logits become probabilities."""
        config = self.model
        if self.objective == "sigmoid":
            config = replace(config, problem_type=self._problem_type)
        return registry.module_for(config, "classify_images")(config, execution)

    def batch_shapes(self) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
        """The only shape of a batch."""
        labels = (self.rows, self.model.classes) if self.multi_label else (self.rows,)
        return (
            {
                "images": jax.ShapeDtypeStruct(picture_shape(self.model, self.rows), jnp.uint8),
                "labels": jax.ShapeDtypeStruct(labels, jnp.int32),
            },
        )

    def init(self, model, key: jax.Array) -> Variables:
        """Initialises variables with random values."""
        return model.init(key, jnp.ones(picture_shape(self.model, batch_multiple())))

    def pretrained(self, model) -> Variables:
        """What `weights` have below the head."""
        if self.weights is None:
            return {}
        loaded = load_pretrained(self.weights, model.execution)
        return image_backbone_variables(loaded, model, self.weights, self.resize_positions)

    def exported(self, model, data: ImageTaskData):
        """The model with the data's class names, where it has none of its own."""
        names = self.model.class_names or data.store.source.class_names
        return model.clone(config=replace(model.config, class_names=names))

    def prepare(self, batch: Any, key: jax.Array | None = None) -> Any:
        """Normalises the pictures, and in training mixes them."""
        batch = {**batch, "images": self.preprocessing.normalised(batch["images"])}
        if key is None or not (self.mixup or self.cutmix):
            return batch
        return mixed(batch, key, self.mixup, self.cutmix)

    def loss(self, model, variables: Variables, batch, *, train: bool = False, rngs=None) -> Loss:
        """The objective's loss and `accuracy`, which of mixed pictures is of their own labels.

        With several labels `accuracy` is the share of images whose labels are all predicted right.
        """
        logits, state = self._logits(model, variables, batch["images"], train, rngs)
        losses = image_loss(
            logits,
            batch["labels"],
            objective=self.objective,
            smoothing=self.smoothing if train else 0.0,
            partners=batch.get("partners"),
            shares=batch.get("shares"),
        )
        if self.multi_label:
            right = ((logits > 0.0) == (batch["labels"] > 0)).all(-1)
        else:
            right = logits.argmax(-1) == batch["labels"]
        right = right.astype(jnp.float32).sum()
        weight = jnp.asarray(logits.shape[0], jnp.float32)
        return Loss(losses.sum(), weight, {"accuracy": right}, state)

    def _logits(self, model, variables: Variables, images, train: bool, rngs):
        """Logits, and the collections that a training step changes."""
        collections = [name for name in variables if name != "params"]
        if not train or not collections:
            return model.apply(variables, images, train=train, rngs=rngs), {}
        return model.apply(variables, images, train=train, rngs=rngs, mutable=collections)

    def example(self, seed: int) -> Batch:
        """Random pixels and labels."""
        rng, shapes = np.random.default_rng(seed), self.batch_shapes()[0]
        return {
            "images": rng.integers(0, 256, shapes["images"].shape).astype(np.uint8),
            "labels": rng.integers(
                0, 2 if self.multi_label else self.model.classes, shapes["labels"].shape
            ).astype(np.int32),
        }

    def probe(self, model, variables: Variables, batch) -> dict[str, jax.Array]:
        """Logits, and what the head sees where a norm's epsilon shows.

        That is where all parameters are small, or under batch norm the running variances.
        """
        images = self.prepare(batch)["images"]
        shrunk = "batch_stats" if "batch_stats" in variables else "params"
        small = {**variables, shrunk: jax.tree.map(lambda x: SMALL * x, variables[shrunk])}
        return {
            "logits": model.apply(variables, images),
            f"pooled on small {shrunk}": model.apply(small, images, method="pooled"),
        }

    def units(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["labels"])

    # ------------------------------------------------------------------ data

    def open(self, folder: epath.Path, seed: int, host: int = 0) -> ImageTaskData:
        """Opens all sets, for their mistakes to show before training.

        Raises:
            ConfigError: data of other classes than the model's.
            DataError: no labels, or a set that cannot be read.
        """
        images, sets = self._open_sets()
        store = ImageRows(images, self.augmentation)
        processor = Processor(preprocessing=self.preprocessing)
        sizes = tuple((entry.name, len(entry.images)) for entry in sets)
        plan = ImagePlan(store, self.rows)
        passed_over = passed_over_lines(images, *(entry.images for entry in sets))
        return ImageTaskData(
            store, plan, processor, self.workers, evaluation_sizes=sizes, passed_over=passed_over
        )

    def check_data(self) -> None:
        """Raises what `open` would raise."""
        self._open_sets()

    def _open_sets(self) -> tuple[LabelledImages, list[EvaluationSet]]:
        """The training images and the sets to evaluate, their labels checked."""
        images = self.data.open()
        if not images.labelled:
            raise DataError(f"{images.source} has no labels to train on")
        sets = self.evaluators()[0].open_sets(final=True)
        for labelled in (images, *(entry.images for entry in sets)):
            check_labels(labelled, self.model.classes, self.multi_label)
        return images, sets

    def processor(self, folder: epath.PathLike) -> Processor:
        """The preprocessing, which the task itself states."""
        return Processor(preprocessing=self.preprocessing)

    def evaluators(self) -> tuple[ImageEvaluator]:
        """Accuracy on the development and the test set."""
        return (
            ImageEvaluator(
                dev=self.dev or self.data.other("dev"),
                test=self.test or self.data.other("test"),
                real=self.real,
                classes=self.model.classes,
                class_names=self.model.class_names,
                preprocessing=self.preprocessing,
                rows=self.rows,
                objective=self.objective,
            ),
        )

    # ------------------------------------------------------------------ rehearsal

    def rehearsal(self) -> ImageClassification:
        """A few thousand parameters and some dozens of bundled pictures."""
        model = registry.shrink(replace(self.model, classes=10, class_names=()))
        return replace(
            self,
            model=model,
            test=BundledFashionMnist("test", limit=24),
            real=None,
            multi_label=False,
            **rehearsed(self, model.image_size),
        )
