"""What every task on text and images has: a prompt, inputs, a target, a metric, a picture of it.

A task is a small dataclass with a source. A source gives records: dictionaries of named features.
`sample` turns a record into inputs and target; `metrics` scores what a model answered; `trivial`
is the answer that needs no model, which every number is compared with.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from jaxformers.data.mixture import MixtureTask
from jaxformers.data.scenes import EmojiScenes, Scene
from jaxformers.errors import ConfigError, DataError
from jaxformers.tasks.text_image.records import JsonlRecords, ListedRecords, Record, TfdsRecords
from jaxformers.text.unified_io import Regions, UnifiedIOTokenizer, read_regions, read_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Picture = UInt8[np.ndarray, "H W 3"]
Box = tuple[float, float, float, float]
Source = EmojiScenes | JsonlRecords | TfdsRecords | ListedRecords
UNUSABLE = (TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError)
"""What a task raises on features that it cannot use."""
SCENE_ATTEMPTS = 64  # scenes that are looked at for one that suits the task


@dataclass(frozen=True)
class Sample:
    """One example as a model reads and answers it.

    Attributes:
        prompt: input text.
        image: input picture; None: none.
        hidden: box of the input picture whose patches are masked; None: nothing is.
        masked: share of the patches that are masked at random.
        text: target text; None: a picture is the target.
        target: target picture.
        truth: what the metric compares an answer with.
        options: all answers among which the right one is, where there are such.
    """

    prompt: str
    image: Picture | None = None
    hidden: Box | None = None
    masked: float = 0.0
    text: str | None = None
    target: Picture | None = None
    truth: Any = None
    options: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input picture, else of the target."""
        picture = self.image if self.image is not None else self.target
        return (1, 1) if picture is None else picture.shape[:2]

    def describe(self) -> str:
        """Inputs and target in lines; of pictures the width and height in pixels."""
        lines = {"prompt": self.prompt}
        if self.image is not None:
            lines["input picture"] = _size_text(self.image)
        if self.hidden is not None:
            lines["hidden box"] = " ".join(f"{edge:g}" for edge in self.hidden)
        if self.masked:
            lines["masked patches"] = f"{self.masked:.0%}"
        if self.text is not None:
            lines["target text"] = self.text
        if self.target is not None:
            lines["target picture"] = _size_text(self.target)
        if self.options:
            lines["options"] = ", ".join(self.options)
        return "\n".join(f"{name:15} {value}" for name, value in lines.items())


class Prediction(NamedTuple):
    """What a model answered: ids of text, or a picture in the size of the sample's.

    Attributes:
        ids: of a text.
        picture: in the size of the sample's.
        square: the same as it was decoded, with the padding.
    """

    ids: Sequence[int] = ()
    picture: Picture | None = None
    square: Picture | None = None


@dataclass(frozen=True)
class TextImageTask(MixtureTask):
    """Base class of a task: what it asks, of which features, and how its answers are evaluated.

    A task states PROMPT, FEATURES, INPUT, OUTPUT and BEST and has the methods `sample`, `metrics`,
    and `scene_record` where emoji scenes have its truth; `read` and `show` have defaults by the
    kind of output.
    """

    PROMPT: ClassVar[str] = ""
    FEATURES: ClassVar[tuple[str, ...]] = ()
    """Of a record, all of which it must have."""
    INPUT: ClassVar[Literal["text", "image"]] = "image"
    """`text`: no sample has an input picture."""
    OUTPUT: ClassVar[Literal["text", "image"]] = "text"
    BEST: ClassVar[str] = ""
    """The metric that the task is evaluated by; a task in `TextImage.dev` must state one."""
    LOWEST_IS_BEST: ClassVar[bool] = False
    """Whether that metric is an error."""

    source: Source = field(default_factory=EmojiScenes)

    def __post_init__(self):
        super().__post_init__()
        opens = callable(getattr(self.source, "open", None))
        is_path = isinstance(self.source, type | os.PathLike)  # which have an `open` of their own
        if not isinstance(self.source, EmojiScenes) and (is_path or not opens):
            raise ConfigError(
                f"the source of {type(self).__name__} is {self.source!r:.80}: give a source, such "
                'as JsonlRecords("train.jsonl")'
            )

    def sample(self, record: Record, word: int) -> Sample:
        """Inputs and target of a record; `word` is random and chooses where there is a choice."""
        raise NotImplementedError

    def scene_record(self, scene: Scene, word: int) -> Record | None:
        """The features of a scene; None where it has none of what the task is about.

        Raises:
            DataError: emoji scenes have no truth for this task.
        """
        raise DataError(f"emoji scenes have no truth for {type(self).__name__}: give it a source")

    def ids(
        self, tokenizer: UnifiedIOTokenizer, sample: Sample, word: int, longest: int
    ) -> tuple[list[int], list[int]]:
        """Ids of the prompt, at most `longest`, and of the target text, both without eos."""
        prompt, text = tokenizer.encode([sample.prompt, sample.text or ""])
        return prompt[:longest], text

    def truth(
        self, tokenizer: UnifiedIOTokenizer, sample: Sample, target_ids: Sequence[int]
    ) -> Any:
        """What `metrics` compares an answer with: the sample's, unless a row decides it."""
        return sample.truth

    def metrics(self, answers: Sequence[Any], truths: Sequence[Any]) -> dict[str, float]:
        """Scores of answers, as `read` gives them."""
        raise NotImplementedError

    def read(self, tokenizer: UnifiedIOTokenizer, prediction: Prediction, sample: Sample) -> Any:
        """A prediction as `metrics` takes it; never raises on what a model may answer."""
        if self.OUTPUT == "image":
            return (
                np.zeros_like(sample.target) if prediction.picture is None else prediction.picture
            )
        return read_text(tokenizer, prediction.ids).text

    def trivial(self, truths: Sequence[Any]) -> list[Any]:
        """The same answer to every sample, computed from the truths of others: the most frequent.

        Tasks with pictures override it by a mean, those with an input picture by a copy.
        """
        answer = Counter(map(_first, truths)).most_common(1)[0][0]
        return [answer] * len(truths)

    def show(self, axis: Axes, sample: Sample, answer: Any) -> None:
        """Draws an answer: a picture, boxes on the input picture, or a text."""
        axis.set(xticks=[], yticks=[])
        if isinstance(answer, np.ndarray):
            axis.imshow(answer)
            return
        if sample.image is not None:
            axis.imshow(sample.image)
        if isinstance(answer, Regions):
            draw_boxes(axis, answer.boxes, answer.labels)
        else:
            axis.set_xlabel(str(answer), fontsize=7, parse_math=False)

    def open(self) -> TaskSamples:
        """The records of the source; raises DataError where they are missing."""
        if isinstance(self.source, EmojiScenes):
            # The first scene shows whether there is truth for this task at all.
            records = TaskSamples(
                self, len(self.source), self._scene_record, self.source.fingerprint
            )
            records.sample(0, 0)
            return records
        opened = self.source.open()
        return TaskSamples(self, len(opened), opened.record, opened.fingerprint)

    def _scene_record(self, index: int, word: int) -> Record:
        for attempt in range(SCENE_ATTEMPTS):
            scene = self.source.scene((index + 7919 * attempt) % len(self.source))
            if (record := self.scene_record(scene, word)) is not None:
                return record
        raise DataError(
            f"of {SCENE_ATTEMPTS} scenes none suits {type(self).__name__}: raise most_objects"
        )


class RegionTask(TextImageTask):
    """A task whose answers are boxes with labels."""

    def read(
        self, tokenizer: UnifiedIOTokenizer, prediction: Prediction, sample: Sample
    ) -> Regions:
        """Boxes in pixels of the input picture."""
        return read_regions(tokenizer, prediction.ids, sample.size)


class TaskSamples:
    """The samples of one task.

    Args:
        task: that makes them.
        size: how many there are.
        record: of an index and a random word.
        fingerprint: of the source.
    """

    def __init__(
        self,
        task: TextImageTask,
        size: int,
        record: Callable[[int, int], Record],
        fingerprint: Mapping[str, Any],
    ):
        self.task, self._size, self._record = task, size, record
        self.fingerprint = {"task": type(task).__name__, **fingerprint}

    def __len__(self) -> int:
        return self._size

    def sample(self, index: int, word: int) -> Sample:
        """The sample `index`; the random 64-bit `word` chooses among captions, questions, ...

        Raises:
            DataError: the record lacks a feature or has one that cannot be used; the message names
                task, example and feature.
        """
        where = f"{type(self.task).__name__}, example {index:,}"
        try:
            record = self._record(index, word)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        for name in self.task.FEATURES:
            if record.get(name) is None:
                raise DataError(f"{where}: the feature {name!r} is missing")
        try:
            if "image" in self.task.FEATURES:
                _check_picture(record["image"])
            sample = self.task.sample(record, word)
            for text in (sample.prompt, "" if sample.text is None else sample.text):
                if not isinstance(text, str):
                    raise TypeError(f"{text!r:.80} is not a text")
            return sample
        except (*UNUSABLE, DataError) as error:
            names = ", ".join(f"{n} ({type(record[n]).__name__})" for n in self.task.FEATURES)
            raise DataError(f"{where}: its features {names} do not fit: {error}") from None


def _check_picture(picture: Any) -> None:
    if not isinstance(picture, np.ndarray):
        raise TypeError(f"image is {picture!r:.80}, not a picture")
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"image is {picture.dtype} {picture.shape}, not uint8 [H, W, 3]")


def choose(items: Sequence[Any], word: int) -> Any:
    """One of `items` by a random 64-bit word."""
    if not items:
        raise ValueError("there is nothing to choose from")
    return items[(word >> 32) % len(items)]


def as_list(value: Any) -> list[str]:
    """A list of several texts, or of the one.

    Raises:
        ValueError: a dictionary, such as TFDS gives for a sequence of several features, or
            something among them that is no text.
    """
    if isinstance(value, Mapping):
        name = next(iter(value), "")
        raise ValueError(f"it holds {', '.join(value)}: name one of them, such as .../{name}")
    texts = [value] if isinstance(value, str) else list(value)
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{text!r:.80} is not a text")
    return texts


def true_regions(boxes: Any, labels: Any) -> Regions:
    """The boxes of a record, x1 y1 x2 y2, each with its label.

    Boxes without an area pass: COCO has some.

    Raises:
        ValueError: boxes and labels do not match, corners are exchanged, or a label is no text.
    """
    labels = tuple(as_list(labels))
    boxes = np.array(boxes, float)
    if not boxes.size:
        boxes = np.zeros((0, 4))
    if boxes.shape != (len(labels), 4):
        raise ValueError(f"boxes of the shape {boxes.shape} and {len(labels)} labels")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise ValueError("x1 y1 of a box is its upper left corner, x2 y2 its lower right one")
    return Regions(boxes, labels)


def true_box(box: Any) -> Box:
    """The one box of a record; errors as `true_regions`."""
    return tuple(true_regions([box], [""]).boxes[0].tolist())


def as_masks(masks: Any, size: tuple[int, int]) -> Bool[np.ndarray, "N H W"]:
    """Masks of a picture of `size`, perhaps none.

    Raises:
        ValueError: masks of another size.
    """
    masks = np.asarray(masks, bool)
    if not masks.size:
        return np.zeros((0, *size), bool)
    return in_shape("masks", masks, (len(masks), *size) if masks.ndim else size)


def in_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The feature `name` in the shape that the picture's size asks for.

    Raises:
        ValueError: it has another shape, a last axis of length 1 (a grey picture's) aside.
    """
    if array.shape not in (shape, (*shape, 1)):
        raise ValueError(f"{name} has the shape {array.shape}, with this picture it is {shape}")
    return array.reshape(shape)


def exact_match(answers: Sequence[str], truths: Sequence[Any]) -> float:
    """Percentage of answers that are the truth, or one of several, letter case aside."""
    hits = [
        answer.strip().lower() in {text.strip().lower() for text in as_list(truth)}
        for answer, truth in zip(answers, truths, strict=True)
    ]
    return 100 * float(np.mean(hits))


def mean_picture(truths: Sequence[Picture]) -> list[Picture]:
    """The mean of all pictures, brought to the size of the first, in the size of each of them."""
    size = truths[0].shape[:2]
    mean = np.mean([_in_size(truth, size).astype(np.float32) for truth in truths], axis=0)
    mean = mean.round().astype(np.uint8)
    return [_in_size(mean, truth.shape[:2]) for truth in truths]


def _in_size(picture: Picture, size: tuple[int, int]) -> Picture:
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))


def draw_boxes(axis: Axes, boxes: Any, labels: Sequence[str]) -> None:
    """Rectangles with their labels."""
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), label in zip(np.asarray(boxes).tolist(), labels, strict=True):
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="tab:red"))
        axis.text(x1, y1, label, fontsize=6, color="tab:red", va="bottom", parse_math=False)


def _size_text(picture: Picture) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _first(truth: Any) -> Any:
    return truth if isinstance(truth, str) else next(iter(truth))
