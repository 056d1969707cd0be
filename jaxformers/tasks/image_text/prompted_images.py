"""Labelled images whose captions are prompts of their classes."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from jaxformers.data.captions.captioned_images import CaptionedImages, CaptionSource
from jaxformers.data.images import LabelledImages
from jaxformers.errors import DataError
from jaxformers.evaluation.zero_shot import load_class_prompts
from jaxformers.evaluation.zero_shot.class_prompts import FIELD, PUBLISHED
from jaxformers.tasks.images.image_data import ImageData


@dataclass(frozen=True)
class PromptedImages(CaptionSource):
    """Labelled images with a caption for each template: "a photo of a tulip, a type of flower.".

    Contrastive training on them is fine-tuning by the prompts of zero-shot classification.
    """

    images: ImageData
    """The images; each has one label."""
    prompts: str
    """Data set whose class names and templates are shipped, or a JSON file of them."""
    templates: str = PUBLISHED
    """Which set of templates."""

    def open(self) -> CaptionedImages:
        """The images with their captions.

        Raises:
            ConfigError: unknown prompts or templates.
            DataError: images without labels or with several, or labels that match no class name.
        """
        images = self.images.open()
        if not images.labelled or images.multi_label:
            raise DataError(f"{images.source}: each image needs one label to be prompted by")
        prompts = load_class_prompts(self.prompts)
        names = prompts.names_for(images.class_names)
        return _Prompted(images, names, prompts.template_set(self.templates))


class _Prompted(CaptionedImages):
    def __init__(self, images: LabelledImages, names: tuple[str, ...], templates: tuple[str, ...]):
        self.source, self.skipped, self._images = images.source, images.skipped, images
        self._captions = [
            tuple(template.replace(FIELD, name) for template in templates) for name in names
        ]
        self.content = f"{images.content} {self._captions}"

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Image.Image:
        return self._images.example(index)[0]

    def captions(self, index: int) -> tuple[str, ...]:
        return self._captions[self._images.labels[index]]

    def where(self, index: int) -> str:
        return self._images.where(index)

    def name(self, index: int) -> str:
        return self._images.name(index)
