"""Models of images at work: classes, vectors, and heat maps that explain them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxformers.api import sources
from jaxformers.api.sources import ImageSource
from jaxformers.data.images.preprocessing import one_by_one
from jaxformers.errors import check_top
from jaxformers.tasks.image_text import zero_shot
from jaxformers.tasks.images import image_inference

if TYPE_CHECKING:
    import numpy as np

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
    preprocessing = sources.preprocessing_of(source, model)
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
