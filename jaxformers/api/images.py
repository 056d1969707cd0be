"""Models of images at work: classes, vectors, and heat maps that explain them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from jaxformers.api import sources
from jaxformers.api.ask import explained_answer
from jaxformers.api.sources import ImageSource, ImageTextSource
from jaxformers.data.images.preprocessing import one_by_one
from jaxformers.errors import ConfigError, DataError, WeightsError, check_top
from jaxformers.models import UnifiedIO
from jaxformers.tasks.image_text import zero_shot
from jaxformers.tasks.images import image_inference
from jaxformers.text import listed_texts

if TYPE_CHECKING:
    import numpy as np

    from jaxformers.interpret import ExplainedAnswer, ExplainedMatch, ExplainedPicture
    from jaxformers.interpret.explain import Method


@overload
def explain(
    source: ImageSource,
    image: Any,
    method: Method | None = ...,
    *,
    text: None = ...,
    top: int = ...,
    start_layer: int | None = ...,
) -> ExplainedPicture:
    """Heat maps of a picture's likeliest classes."""


@overload
def explain(
    source: ImageTextSource,
    image: Any,
    method: Method | None = ...,
    *,
    text: str | Sequence[str],
    start_layer: int | None = ...,
    text_start_layer: int | None = ...,
) -> ExplainedMatch:
    """Heat maps of a picture and of a text's words, of how well they match."""


@overload
def explain(
    source: ImageTextSource,
    image: Any = ...,
    method: Method | None = ...,
    *,
    prompt: str,
    answer: str | None = ...,
) -> ExplainedAnswer:
    """Heat maps of a picture and of a prompt's words, of an answer."""


def explain(
    source: ImageSource | ImageTextSource,
    image: Any = None,
    method: Method | None = None,
    *,
    text: str | Sequence[str] | None = None,
    prompt: str | None = None,
    answer: str | None = None,
    top: int = 3,
    start_layer: int | None = None,
    text_start_layer: int | None = None,
) -> ExplainedPicture | ExplainedMatch | ExplainedAnswer:
    """Where in a picture a ViT sees its classes, a CLIP a text, or Unified-IO its answer.

    `.figure()` of the result draws the heat maps; with `text` or `prompt` the words, too, on which
    the match or the answer rests.

    Args:
        source: a ViT with a head, with `text` a CLIP, with `prompt` a Unified-IO, as for
            `from_pretrained`, which is kept loaded for the next call; or `(model, variables,
            preprocessing)`, of a CLIP or Unified-IO `(model, variables, processor)`.
        image: a path, encoded bytes, a Pillow image or a uint8 array `[H, W, C]`; None, with
            `prompt` alone: the prompt has no picture.
        method: "attribution" (Chefer et al., CVPR 2021; the default) or "generic" (ICCV 2021),
            which tell classes apart; "rollout" or "attention" (the last layer's), which do not.
            With `text` or `prompt` always "generic".
        text: what is compared with the picture, one or several.
        prompt: as for `ask`.
        answer: the text to explain; None: the one that the model generates.
        top: how many classes, of a classifier.
        start_layer: the first layer that counts; None: the first of all, with `text` the last, as
            in the authors' notebook. With `prompt` all layers count.
        text_start_layer: that of the text tower; None: the last.

    Raises:
        ConfigError: an unknown method, no such layer, no class asked for, arguments that exclude
            each other, or an answer that is no text.
        DataError: no picture where one is needed, one that cannot be read, an empty answer, or a
            text that is too long.
        WeightsError: a model without patches or without a head; with `text` one without a text
            tower, or whose image tower is a ResNet or a SigLIP's; with `prompt` another model than
            a Unified-IO.

    Example:
        >>> jf.explain("google/vit-base-patch16-224", "photo.png").figure()
        <Figure size ... with ... Axes>
    """
    if prompt is not None or answer is not None:
        if prompt is None:
            raise ConfigError("an answer without a prompt: give the prompt that it answers")
        _check_answer_arguments(text, method, start_layer, text_start_layer)
        return explained_answer(source, prompt, image, answer)
    if image is None:
        raise DataError("no picture: give one, or for a Unified-IO a prompt")
    if text is None:
        return _explain_classes(source, image, method, top, start_layer)
    return _explain_match(source, image, method, text, start_layer, text_start_layer)


def _explain_classes(source, image, method, top, start_layer) -> ExplainedPicture:
    from jaxformers.interpret import explain_picture  # matplotlib

    model, variables = sources.model_of(source)
    if isinstance(model, UnifiedIO):
        raise WeightsError(
            f"{sources.name_of(source)} holds a UnifiedIO, whose answers are explained: give a "
            "prompt"
        )
    preprocessing = sources.preprocessing_of(source, model)
    choices = dict(top=top, start_layer=start_layer or 0)
    method = "attribution" if method is None else method
    return explain_picture(model, variables, preprocessing, image, method, **choices)


def _explain_match(source, image, method, text, start_layer, text_start_layer) -> ExplainedMatch:
    from jaxformers.interpret import explain_match  # matplotlib

    if method not in (None, "generic"):
        raise ConfigError(f"method {method!r} explains no text: leave it out, or take 'generic'")
    model, variables, tokenizer = sources.text_model("zero_shot", source)
    preprocessing = sources.preprocessing_of(source, model)
    return explain_match(
        model,
        variables,
        tokenizer,
        preprocessing,
        image,
        listed_texts(text),
        start_layer=start_layer,
        text_start_layer=text_start_layer,
    )


def _check_answer_arguments(text, method, start_layer, text_start_layer) -> None:
    """Refuses what does not go with the explanation of an answer."""
    if text is not None:
        raise ConfigError("text is for a CLIP, prompt for a Unified-IO: give one of them")
    if method not in (None, "generic"):
        raise ConfigError(f"method {method!r} explains no answer: leave it out, or take 'generic'")
    if start_layer is not None or text_start_layer is not None:
        raise ConfigError("start_layer goes with no prompt: an answer is explained by all layers")


def classify_images(
    source: ImageSource, pictures: Any, *, top: int = 5
) -> list[list[tuple[str, float]]]:
    """The likeliest classes of each picture, (name, score), the best first.

    Scores are softmax or sigmoid probabilities, or a regression's numbers, as the model's
    `problem_type` says.

    Args:
        source: a ViT, ResNet or BiT with a head, as for `from_pretrained`, which is kept loaded
            for the next call; or `(model, variables, preprocessing)`.
        pictures: one or several: paths, encoded bytes, Pillow images or uint8 arrays
            `[H, W, C]`, or a batch `[B, H, W, C]`; a folder's path stands for the pictures in it,
            in the order of their names.
        top: how many classes.

    Raises:
        ConfigError: no class asked for.
        DataError: a picture that cannot be read, or a folder without any.
        WeightsError: a model without a classifier of pictures.

    Example:
        >>> jf.classify_images("google/vit-base-patch16-224", "photo.png", top=2)
        [[('...', 0...), ('...', 0...)]]
    """
    check_top(top)
    model, variables = sources.model_of(source)
    image_inference.check_classifier(model, sources.name_of(source))
    preprocessing = sources.preprocessing_of(source, model)
    listed = listed_pictures(pictures)
    return image_inference.classify_images(model, variables, preprocessing, listed, top=top)


def embed_images(source: ImageSource, pictures: Any, *, normalize: bool = False) -> np.ndarray:
    """A vector for each picture, float32 `[n, D]`, in their order.

    Of CLIP and SigLIP it is the projected encoding, whose cosine with `embed`'s of a text tells how
    well both fit; of a ViT, ResNet or BiT the input of its head.

    Args:
        source: as for `from_pretrained`, which is kept loaded for the next call; or
            `(model, variables, preprocessing)`, or a `Processor` in the third place. A CLIP whose
            folder states no preprocessing takes OpenAI's.
        pictures: as for `classify_images`.
        normalize: whether vectors get length 1.

    Raises:
        DataError: a picture that cannot be read, or a folder without any.
        WeightsError: a model that gives no vectors of pictures, or outputs that are not finite.

    Example:
        >>> vectors = jf.embed_images("openai/clip-vit-base-patch32", ["photo.png", "photo.png"])
        >>> bool((vectors[0] == vectors[1]).all())
        True
    """
    model, variables = sources.model_of(source)
    image_inference.check_embedder(model, sources.name_of(source))
    preprocessing = sources.preprocessing_of(source, model)
    listed = listed_pictures(pictures)
    vectors = image_inference.embed_images(model, variables, preprocessing, listed)
    return zero_shot.unit_vectors(vectors) if normalize else vectors


def listed_pictures(pictures: Any) -> list[Any]:
    """One picture or several as a list; if all are paths, a folder becomes the pictures in it."""
    listed = one_by_one(pictures)
    if not all(isinstance(picture, str) or hasattr(picture, "__fspath__") for picture in listed):
        return listed
    return image_inference.list_pictures(listed)[0]
