"""Models of images at work: classes, and heat maps that explain them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxformers.api import sources
from jaxformers.api.sources import ImageSource
from jaxformers.data.images.preprocessing import one_by_one
from jaxformers.errors import check_top
from jaxformers.tasks.images import image_inference

if TYPE_CHECKING:
    from jaxformers.interpret import ExplainedPicture


def explain(
    source: ImageSource,
    image: Any,
    method: str = "attribution",
    *,
    top: int = 3,
    start_layer: int = 0,
) -> ExplainedPicture:
    """Where in a picture a ViT sees its likeliest classes; `.figure()` draws the heat maps.

    Args:
        source: a ViT with a head, as for `from_pretrained`, which is kept loaded for the next
            call; or `(model, variables, preprocessing)`.
        image: a path, encoded bytes, a Pillow image or a uint8 array `[H, W, C]`.
        method: "attribution" (Chefer et al., CVPR 2021) or "generic" (ICCV 2021), which tell
            classes apart; "rollout" or "attention" (the last layer's), which do not.
        top: how many classes.
        start_layer: the first layer that counts.

    Raises:
        ConfigError: an unknown method, no such layer, or no class asked for.
        DataError: a picture that cannot be read.
        WeightsError: a model without patches or without a head.
    """
    from jaxformers.interpret import explain_picture  # matplotlib: only where it is needed

    model, variables = sources.model_of(source)
    preprocessing = sources.preprocessing_of(source)
    choices = dict(top=top, start_layer=start_layer)
    return explain_picture(model, variables, preprocessing, image, method, **choices)


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
    """
    check_top(top)
    model, variables = sources.model_of(source)
    image_inference.check_classifier(model, sources.name_of(source))
    listed = one_by_one(pictures)
    paths = [
        picture for picture in listed if isinstance(picture, str) or hasattr(picture, "__fspath__")
    ]
    if len(paths) == len(listed):
        listed, _ = image_inference.list_pictures(paths)
    preprocessing = sources.preprocessing_of(source)
    return image_inference.classify_images(model, variables, preprocessing, listed, top=top)
