"""Models of images and texts at work: classes that are described in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxformers.api import sources
from jaxformers.api.images import listed_pictures
from jaxformers.api.sources import ImageTextSource
from jaxformers.errors import check_top
from jaxformers.tasks.image_text import zero_shot as classification
from jaxformers.tasks.images import image_inference
from jaxformers.text import listed_texts


def zero_shot(
    source: ImageTextSource,
    pictures: Any,
    names: str | Sequence[str],
    *,
    template: str | Sequence[str] = classification.TEMPLATE,
    top: int | None = None,
    truncate: bool = False,
) -> list[list[tuple[str, float]]]:
    """The classes of each picture by their names alone, (name, probability), the best first.

    Probabilities are CLIP's softmax over the names; of SigLIP, whose names do not exclude each
    other, each name's own.

    Args:
        source: a CLIP or SigLIP, as for `from_pretrained`, which is kept loaded for the next call;
            or `(model, variables, processor)`. OpenAI's tokenizer and preprocessing stand in where
            its folder has none.
        pictures: as for `classify_images`.
        names: of the classes; a name that comes again is a class of its own.
        template: a prompt with `{}` where the name stands, or several, whose vectors are averaged;
            "{}" takes the names as they are.
        top: how many classes; None: all.
        truncate: whether a prompt with more tokens than the model has positions is cut.

    Raises:
        ConfigError: a template without `{}`.
        DataError: no names, a picture that cannot be read, or a prompt that is too long, unless
            `truncate`.
        WeightsError: a model without both towers, another model's tokenizer, or outputs that are
            not finite.

    Example:
        >>> jf.zero_shot("openai/clip-vit-base-patch32", "photo.png", ["cat", "dog"])
        [[('...', 0...), ('...', 0...)]]
    """
    if top is not None:
        check_top(top)
    model, variables, tokenizer = sources.text_model("zero_shot", source)
    preprocessing = sources.preprocessing_of(source, model)
    names, templates = listed_texts(names), listed_texts(template)
    weights = classification.class_weights(
        model, variables, tokenizer, names, templates, truncate=truncate
    )
    images = image_inference.embed_images(
        model, variables, preprocessing, listed_pictures(pictures)
    )
    shares = classification.class_probabilities(model, variables, images, weights)
    order = np.argsort(-shares, axis=-1, kind="stable")[:, :top]
    return [
        [(names[k], float(row[k])) for k in classes]
        for row, classes in zip(shares, order, strict=True)
    ]
