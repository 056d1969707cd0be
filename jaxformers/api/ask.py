"""Unified-IO at work: any prompt, and the tasks that it was trained for by name."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from matplotlib import colormaps
from matplotlib.figure import Figure

from jaxformers.api import sources
from jaxformers.api.sources import ImageTextSource
from jaxformers.data.images.decoding import decoding, pixels
from jaxformers.data.images.preprocessing import one_by_one, read_picture
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.interpret import ExplainedAnswer
from jaxformers.models import UnifiedIO
from jaxformers.tasks import text_image as ti
from jaxformers.tasks.text_image.base import Box, Picture, Prediction, Sample, draw_boxes
from jaxformers.tasks.text_image.evaluation import in_size
from jaxformers.tasks.text_image.explained_answer import explain_sample
from jaxformers.tasks.text_image.inference import (
    Decoding,
    Output,
    answer_samples,
    check_output,
)
from jaxformers.tasks.text_image.pictures.segmentation import read_masks
from jaxformers.tasks.text_image.pictures.synthesis import painted_segments
from jaxformers.tasks.text_image.prompts import check_prompt
from jaxformers.text import UnifiedIOTokenizer
from jaxformers.text.unified_io import (
    KeyPoints,
    Regions,
    box_text,
    checked_box,
    read_key_points,
    read_regions,
    read_text,
)


@dataclass(frozen=True)
class Asked:
    """An answer of Unified-IO, in pixels of the input picture.

    Attributes:
        prompt: what was asked.
        image: the input picture; None: there was none.
        text: of the answer; None: the answer is a picture.
        picture: the answer, uint8 `[H, W, 3]` in the size of the input picture, if there is one.
        regions: boxes x1 y1 x2 y2 and labels that the text states, where it was read for them.
        key_points: joints that the text states, where it was read for them.
        masks: of the objects in a picture of segments, where it was read for them.
        problems: what of the answer was not understood.
    """

    prompt: str
    image: Picture | None = None
    text: str | None = None
    picture: Picture | None = None
    regions: Regions | None = None
    key_points: KeyPoints | None = None
    masks: tuple[Bool[np.ndarray, "H W"], ...] = ()
    problems: tuple[str, ...] = ()

    def figure(self) -> Figure:
        """The input picture, what was found in it, and the answer beside it if it is a picture."""
        pictures = [p for p in (self.image, self.picture) if p is not None]
        figure = Figure(figsize=(3.2 * max(len(pictures), 1), 3.6), layout="constrained")
        axes = figure.subplots(1, max(len(pictures), 1), squeeze=False)[0]
        for axis, picture in zip(axes, pictures, strict=False):
            axis.imshow(picture)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
        for number, mask in enumerate(self.masks):
            colour = colormaps["tab10"](number % 10)[:3]
            axes[0].imshow(np.where(mask[..., None], (*colour, 0.6), 0.0))
        if self.regions is not None:
            draw_boxes(axes[0], self.regions.boxes, self.regions.labels)
        if self.key_points is not None:
            x, y = self.key_points.points[self.key_points.visibility > 0].T
            axes[0].scatter(x, y, s=10, color="tab:red")
        characters = 45 * len(axes)
        lines = [
            textwrap.fill(text, characters, max_lines=4, placeholder=" ...")
            for text in (self.prompt, self.text)
            if text
        ]
        figure.suptitle("\n".join(lines), fontsize=8, parse_math=False)
        return figure


Reader = Callable[[UnifiedIOTokenizer, Prediction, Sample], dict[str, Any]]


def ask(
    source: ImageTextSource,
    prompt: str,
    image: Any = None,
    output: Output = "text",
    *,
    hidden: Box | None = None,
    max_tokens: int = 64,
    beams: int = 1,
    top_p: float = 0.9,
    seed: int = 0,
) -> Asked | list[Asked]:
    """The answer of Unified-IO to any prompt, for a picture, several, or none.

    Args:
        source: weights or a run of Unified-IO, as for `from_pretrained`, which are kept loaded for
            the next call; or `(model, variables, processor)`, in place of the processor perhaps
            the tokenizer alone.
        prompt: as in training; location tokens are written `<extra_id_N>`.
        image: a picture (a path, bytes, an array, Pillow's image), several, or None.
        output: whether the answer is a `text` or an `image`.
        hidden: box x1 y1 x2 y2 in pixels whose patches the model does not see.
        max_tokens: of a text.
        beams: width of the search for a text.
        top_p: nucleus from which the codes of a picture are drawn.
        seed: of these draws, 0 to 2**32 - 1.

    Returns:
        One answer, or a list of answers for a list of pictures.

    Raises:
        ConfigError: no such output, not the one of the task whose prompt it is, or a number out of
            its range.
        DataError: a picture that cannot be read, one too many or too few for the task whose prompt
            it is, a box that is empty or outside the picture, or a prompt that is too long.
        WeightsError: another model, or a tokenizer that is not T5's.

    Example:
        >>> answer = jf.ask("me/unified-io", "What is this ?", "photo.png", max_tokens=6)
        >>> isinstance(answer.text, str)
        True
    """
    _check_text("prompt", prompt)
    check_output(output)
    check_prompt(prompt, image is not None, output)
    options = Decoding(max_tokens, beams, top_p, seed)
    make = _fixed(prompt, hidden)
    return _answers(source, image, make, output, _read_plain, options)


def caption(source: ImageTextSource, image: Any) -> Asked | list[Asked]:
    """What a picture shows, in words. Arguments and errors as for `ask`."""
    return _about(source, image, _fixed(ti.Captioning.PROMPT))


def answer_about(source: ImageTextSource, image: Any, question: str) -> Asked | list[Asked]:
    """The answer to a question about a picture. Arguments and errors as for `ask`."""
    _check_text("question", question)
    return _about(source, image, _fixed(question.lower()))


def detect(source: ImageTextSource, image: Any) -> Asked | list[Asked]:
    """All objects with their boxes, in `.regions`. Arguments and errors as for `ask`."""
    return _about(source, image, _fixed(ti.Detection.PROMPT), read=_read_regions)


def locate(source: ImageTextSource, image: Any, name: str) -> Asked | list[Asked]:
    """The boxes of what `name` describes, in `.regions`. Arguments and errors as for `ask`."""
    _check_text("name", name)
    make = _fixed(ti.Localisation.PROMPT.format(name=name))
    return _about(source, image, make, read=_read_regions)


def segment(source: ImageTextSource, image: Any, name: str, seed: int = 0) -> Asked | list[Asked]:
    """Masks of the objects called `name`, in `.masks`. Arguments and errors as for `ask`."""
    _check_text("name", name)
    make = _fixed(ti.Segmentation.PROMPT.format(name=name))
    return _about(source, image, make, "image", _read_masks, seed)


def depth(source: ImageTextSource, image: Any, seed: int = 0) -> Asked | list[Asked]:
    """The depth map as grey levels, in `.picture`. Arguments and errors as for `ask`."""
    return _about(source, image, _fixed(ti.Depth.PROMPT), "image", seed=seed)


def normals(source: ImageTextSource, image: Any, seed: int = 0) -> Asked | list[Asked]:
    """Surface normals, -1..1 as 0..255, in `.picture`. Arguments and errors as for `ask`."""
    return _about(source, image, _fixed(ti.SurfaceNormals.PROMPT), "image", seed=seed)


def keypoints(source: ImageTextSource, image: Any, box: Box) -> Asked | list[Asked]:
    """The 17 joints of the person in `box`, in `.key_points`. Arguments and errors as for `ask`."""

    def make(picture: Picture | None) -> Sample:
        _, region = _box_and_tokens(box, picture)
        return Sample(ti.KeyPointEstimation.PROMPT.format(region=region), picture)

    return _about(source, image, make, read=_read_key_points)


def inpaint(
    source: ImageTextSource, image: Any, box: Box, label: str, seed: int = 0
) -> Asked | list[Asked]:
    """The picture with `label` painted into `box`, in `.picture`.

    Arguments and errors as for `ask`; `box` is x1 y1 x2 y2 in pixels.
    """

    _check_text("label", label)

    def make(picture: Picture | None) -> Sample:
        hidden, region = _box_and_tokens(box, picture)
        prompt = ti.Inpainting.PROMPT.format(region=f"{region} {label}")
        return Sample(prompt, picture, hidden=hidden)

    return _about(source, image, make, "image", seed=seed)


def paint(
    source: ImageTextSource,
    text: str | None = None,
    seed: int = 0,
    *,
    segments: Sequence[tuple[str, Bool[np.ndarray, "H W"]]] | None = None,
) -> Asked:
    """A picture of what a text says, or of labelled segments, in `.picture`.

    Args:
        source: as for `ask`.
        text: what the picture shows.
        seed: of the draws of the picture's codes.
        segments: in place of `text` 1 to 16 pairs of a label and its mask `[H, W]`, later ones
            over earlier ones. The picture has the size of the masks.

    Raises:
        ConfigError: both a text and segments, or neither.
        DataError: no text, segments that are no such pairs or too many, masks of several shapes, or
            a prompt that is too long.
        WeightsError: as for `ask`.
    """
    if (text is None) == (segments is None):
        raise ConfigError("paint takes either a text or segments: give exactly one of them")
    if segments is None:
        _check_text("text", text)
        sample = Sample(ti.Synthesis.PROMPT.format(text=text))
    else:
        try:
            pairs = [(label, np.asarray(mask, bool)) for label, mask in segments]
        except (TypeError, ValueError):
            raise DataError("segments are pairs of a label and its mask [H, W]") from None
        for label, _ in pairs:
            _check_text("a segment's label", label)
        sample = Sample(*painted_segments([label for label, _ in pairs], [m for _, m in pairs]))
    return _answers(source, None, lambda _: sample, "image", _read_plain, Decoding(seed=seed))


def _about(
    source: ImageTextSource,
    image: Any,
    make: Callable[[Picture | None], Sample],
    output: Output = "text",
    read: Reader | None = None,
    seed: int = 0,
) -> Asked | list[Asked]:
    """As `_answers`, of a task that needs a picture."""
    if image is None:
        raise DataError("this asks about a picture: give one")
    return _answers(source, image, make, output, read or _read_plain, Decoding(seed=seed))


def _answers(
    source: ImageTextSource,
    image: Any,
    make: Callable[[Picture | None], Sample],
    output: Output,
    read: Reader,
    options: Decoding,
) -> Any:
    model, variables, tokenizer = _open(source)
    listed = [] if image is None else one_by_one(image)
    if image is not None and not listed:
        raise DataError("no picture: give one, or several")
    single = image is None or (len(listed) == 1 and listed[0] is image)
    pictures: list[Picture | None] = [_picture(p, number) for number, p in enumerate(listed, 1)]
    samples = [make(picture) for picture in pictures or [None]]
    predictions = answer_samples(model, variables, tokenizer, samples, output, options)
    answers = [
        Asked(sample.prompt, sample.image, **read(tokenizer, prediction, sample))
        for sample, prediction in zip(samples, predictions, strict=True)
    ]
    return answers[0] if single else answers


def explained_answer(
    source: ImageTextSource, prompt: str, image: Any, answer: str | None
) -> ExplainedAnswer:
    """What an answer rests on; see `jaxformers.explain`."""
    if not (answer is None or isinstance(answer, str)):
        raise ConfigError(
            f"answer is a {type(answer).__name__}: texts are explained, pictures as answers are not"
        )
    _check_text("prompt", prompt)
    check_prompt(prompt, image is not None, "text")
    model, variables, tokenizer = _open(source)
    sample = Sample(prompt, None if image is None else _picture(image, 1))
    return explain_sample(model, variables, tokenizer, sample, answer)


def _open(source: ImageTextSource) -> tuple[UnifiedIO, Any, UnifiedIOTokenizer]:
    """Model, variables and tokenizer.

    Raises:
        WeightsError: another model, or a tokenizer that is not T5's or has more ids than the model.
    """
    model, variables = sources.model_of(source)
    if not isinstance(model, UnifiedIO):
        name = sources.name_of(source)
        raise WeightsError(f"{name} holds a {type(model).__name__}; this needs a UnifiedIO")
    tokenizer = sources.tokenizer_of(source, model)
    if not isinstance(tokenizer, UnifiedIOTokenizer):
        raise WeightsError(
            f"{sources.name_of(source)} has a {type(tokenizer).__name__}, not T5's SentencePiece "
            "with location tokens: put T5's spiece.model beside the weights"
        )
    if tokenizer.vocab_size > model.config.vocab_size:
        raise WeightsError(
            f"{sources.name_of(source)}: the tokenizer has {tokenizer.vocab_size:,} ids, the model "
            f"{model.config.vocab_size:,}"
        )
    return model, variables, tokenizer


def _box_and_tokens(box: Any, picture: Picture | None) -> tuple[Box, str]:
    """The numbers of a box, and its location tokens in the picture; errors as `checked_box`."""
    if picture is None:
        raise DataError("a box lies in a picture: give one")
    size = picture.shape[:2]
    corners = checked_box(box, size)
    return corners, box_text(corners, size)


def _picture(source: Any, number: int) -> Picture:
    where = f"picture {number}"
    with decoding(where):
        picture = pixels(read_picture(source, where))
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture


def _fixed(prompt: str, hidden: Box | None = None) -> Callable[[Picture | None], Sample]:
    def make(picture: Picture | None) -> Sample:
        box = None if hidden is None else _box_and_tokens(hidden, picture)[0]
        return Sample(prompt, picture, hidden=box)

    return make


def _check_text(name: str, value: Any) -> None:
    """Raises DataError unless the argument `name` is a text."""
    if not isinstance(value, str):
        raise DataError(f"{name} is a {type(value).__name__}, not a text")


def _read_plain(tokenizer: Any, prediction: Prediction, sample: Sample) -> dict[str, Any]:
    if prediction.picture is not None:
        return {"picture": prediction.picture}
    answer = read_text(tokenizer, prediction.ids)
    return {"text": answer.text, "problems": answer.problems}


def _read_regions(tokenizer: Any, prediction: Prediction, sample: Sample) -> dict[str, Any]:
    regions = read_regions(tokenizer, prediction.ids, sample.size)
    text = read_text(tokenizer, prediction.ids).text
    return {"text": text, "regions": regions, "problems": regions.problems}


def _read_key_points(tokenizer: Any, prediction: Prediction, sample: Sample) -> dict[str, Any]:
    joints = read_key_points(tokenizer, prediction.ids, sample.size)
    text = read_text(tokenizer, prediction.ids).text
    return {"text": text, "key_points": joints, "problems": joints.problems}


def _read_masks(tokenizer: Any, prediction: Prediction, sample: Sample) -> dict[str, Any]:
    masks = [] if prediction.square is None else read_masks(prediction.square)
    masks = [in_size(mask.astype(np.uint8), sample.size).astype(bool) for mask in masks]
    return {"picture": prediction.picture, "masks": tuple(mask for mask in masks if mask.any())}
