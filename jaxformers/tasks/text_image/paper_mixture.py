"""The mixtures that Unified-IO was trained on, from one folder of data (Lu et al. 2022, section 3).

Every task of every data set of `PAPER_DATASETS` is an entry, called SET_TASK. A set that TFDS has
in a form that the task takes is read from `FOLDER/NAME` of TFDS; all others are JSON Lines, which
name their pictures by paths beside them: `FOLDER/SET/TASK.jsonl`, with the features that the task's
class states.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxformers.data.mixture import PAPER_DATASETS, Group, Mixture, PaperDataset
from jaxformers.tasks.text_image.answers.captioning import Captioning
from jaxformers.tasks.text_image.answers.descriptions import Commonsense, RegionCaptioning
from jaxformers.tasks.text_image.answers.grounded_vqa import GroundedVQA
from jaxformers.tasks.text_image.answers.labels import (
    Categorisation,
    ImageClassification,
    Relationship,
    Situation,
    VisualEntailment,
)
from jaxformers.tasks.text_image.answers.vqa import VQA
from jaxformers.tasks.text_image.base import TextImageTask
from jaxformers.tasks.text_image.pictures.maps import Depth, SurfaceNormals
from jaxformers.tasks.text_image.pictures.segmentation import Segmentation
from jaxformers.tasks.text_image.pictures.synthesis import Inpainting, SegmentSynthesis, Synthesis
from jaxformers.tasks.text_image.records import JsonlRecords, TfdsRecords
from jaxformers.tasks.text_image.regions.detection import Detection
from jaxformers.tasks.text_image.regions.key_points import KeyPointEstimation
from jaxformers.tasks.text_image.regions.localisation import Localisation, Referring
from jaxformers.tasks.text_image.texts.denoising import ImageDenoising, TextDenoising
from jaxformers.tasks.text_image.texts.language import (
    QuestionAnswering,
    Summarisation,
    TextClassification,
    TextEntailment,
)


class PaperGroup(NamedTuple):
    """Tasks that are sampled together, in the words of `PAPER_DATASETS`.

    Attributes:
        share: of all examples.
        tasks: which divide it by the square roots of their sets' sizes.
    """

    share: float
    tasks: tuple[str, ...]


# Section 3.2: an eighth each, but more of synthesis, which has the most data, and less of dense
# labels, which have the least; language modelling goes on.
MULTITASK_GROUPS: Mapping[str, PaperGroup] = MappingProxyType(
    {
        "image synthesis": PaperGroup(3 / 16, ("synthesis", "inpaint", "segment_synthesis")),
        "sparse labels": PaperGroup(1 / 8, ("detect", "locate", "keypoints", "refer")),
        "dense labels": PaperGroup(1 / 16, ("depth", "normals", "segment")),
        "image classification": PaperGroup(1 / 8, ("classify", "categorise")),
        "captioning": PaperGroup(1 / 8, ("caption", "region_caption")),
        "vision and language": PaperGroup(
            1 / 8,
            ("vqa", "relate", "grounded_vqa", "entail_image", "commonsense", "situation"),
        ),
        "language": PaperGroup(1 / 8, ("text_answer", "text_classify", "summarise")),
        "language modelling": PaperGroup(1 / 8, ("text_denoise",)),
    }
)
# Denoising of texts and of images, on texts, images and pairs; the paper states no shares.
PRETRAINING_GROUPS: Mapping[str, PaperGroup] = MappingProxyType(
    {
        "texts": PaperGroup(1 / 2, ("text_denoise",)),
        "images": PaperGroup(1 / 2, ("image_denoise",)),
    }
)

TASKS: Mapping[str, type[TextImageTask]] = MappingProxyType(
    {
        "caption": Captioning,
        "categorise": Categorisation,
        "classify": ImageClassification,
        "commonsense": Commonsense,
        "depth": Depth,
        "detect": Detection,
        "entail_image": VisualEntailment,
        "grounded_vqa": GroundedVQA,
        "image_denoise": ImageDenoising,
        "inpaint": Inpainting,
        "keypoints": KeyPointEstimation,
        "locate": Localisation,
        "normals": SurfaceNormals,
        "refer": Referring,
        "region_caption": RegionCaptioning,
        "relate": Relationship,
        "segment": Segmentation,
        "segment_synthesis": SegmentSynthesis,
        "situation": Situation,
        "summarise": Summarisation,
        "synthesis": Synthesis,
        "text_answer": QuestionAnswering,
        "text_classify": TextClassification,
        "text_denoise": TextDenoising,
        "vqa": VQA,
    }
)
ENTAILMENT = {"mnli", "rte", "wnli"}  # sets of pairs of sentences among `text_classify`

# The names in TFDS of the features of a task, where a set has them.
TFDS_FEATURES: Mapping[tuple[str, str], Mapping[str, str]] = MappingProxyType(
    {
        ("ag_news", "text_classify"): {"text": "description", "label": "label"},
        ("birds", "classify"): {"image": "image", "label": "label_name"},
        ("c4", "text_denoise"): {"text": "text"},
        ("cnn_dailymail", "summarise"): {"text": "article", "summary": "highlights"},
        ("coco_captions", "caption"): {"image": "image", "captions": "captions/text"},
        ("coco_captions", "synthesis"): {"image": "image", "captions": "captions/text"},
        ("cola", "text_classify"): {"text": "sentence", "label": "label"},
        ("gigaword", "summarise"): {"text": "document", "summary": "summary"},
        ("imagenet", "classify"): {"image": "image", "label": "label"},
        ("imdb", "text_classify"): {"text": "text", "label": "label"},
        ("inaturalist", "classify"): {"image": "image", "label": "label"},
        ("mnli", "text_classify"): {k: k for k in ("premise", "hypothesis", "label")},
        ("multi_news", "summarise"): {"text": "document", "summary": "summary"},
        ("places365", "classify"): {"image": "image", "label": "label"},
        ("rte", "text_classify"): {
            "premise": "sentence1",
            "hypothesis": "sentence2",
            "label": "label",
        },
        ("squad", "text_answer"): {
            "context": "context",
            "question": "question",
            "answers": "answers/text",
        },
        ("sst2", "text_classify"): {"text": "sentence", "label": "label"},
        ("wnli", "text_classify"): {
            "premise": "sentence1",
            "hypothesis": "sentence2",
            "label": "label",
        },
        ("xsum", "summarise"): {"text": "document", "summary": "summary"},
    }
)


def paper_mixture(
    folder: str,
    groups: Mapping[str, PaperGroup] = MULTITASK_GROUPS,
    without_missing: bool = False,
) -> Mixture:
    """The mixture of the paper's data sets in `folder`; nothing is opened.

    Args:
        folder: of all data; see this module's docstring for its layout.
        groups: tasks with their shares.
        without_missing: whether sets that are missing are left out, in place of an error that lists
            them.
    """
    entries: dict[str, Any] = {}
    members = []
    for group in groups.values():
        names = []
        for dataset in PAPER_DATASETS.values():
            for word in (task for task in dataset.tasks if task in group.tasks):
                names.append(f"{dataset.name}_{word}")
                entries[names[-1]] = _task(dataset, word, folder)
        members.append(Group(tuple(names), group.share))
    return Mixture(entries, "sqrt", groups=tuple(members), without_missing=without_missing)


def _task(dataset: PaperDataset, word: str, folder: str) -> TextImageTask:
    task = TASKS[word]
    if word == "text_classify" and dataset.name in ENTAILMENT:
        task = TextEntailment
    features = TFDS_FEATURES.get((dataset.name, word))
    if features is None:
        return task(JsonlRecords(f"{folder}/{dataset.name}/{word}.jsonl"))
    return task(TfdsRecords(dataset.tfds, "train", tuple(features.items()), folder))
