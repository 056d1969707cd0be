"""Tasks on text and images for one model: a small file each, in rooms by the kind of answer.

Imports `tasks.base`, `data`, `models`, `evaluation` and `text`.
"""

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
from jaxformers.tasks.text_image.base import Prediction, Sample, TaskSamples, TextImageTask
from jaxformers.tasks.text_image.evaluation import TextImageEvaluator
from jaxformers.tasks.text_image.multi_task import TextImage
from jaxformers.tasks.text_image.paper_mixture import (
    MULTITASK_GROUPS,
    PRETRAINING_GROUPS,
    PaperGroup,
    paper_mixture,
)
from jaxformers.tasks.text_image.pictures.maps import Depth, SurfaceNormals
from jaxformers.tasks.text_image.pictures.segmentation import Segmentation
from jaxformers.tasks.text_image.pictures.synthesis import Inpainting, SegmentSynthesis, Synthesis
from jaxformers.tasks.text_image.records import JsonlRecords, ListedRecords, TfdsRecords
from jaxformers.tasks.text_image.regions.detection import Detection
from jaxformers.tasks.text_image.regions.key_points import KeyPointEstimation
from jaxformers.tasks.text_image.regions.localisation import Localisation, Referring
from jaxformers.tasks.text_image.texts.bundled import BundledTexts
from jaxformers.tasks.text_image.texts.denoising import ImageDenoising, TextDenoising
from jaxformers.tasks.text_image.texts.language import (
    QuestionAnswering,
    Summarisation,
    TextClassification,
    TextEntailment,
)

__all__ = [
    "MULTITASK_GROUPS",
    "PRETRAINING_GROUPS",
    "VQA",
    "BundledTexts",
    "Captioning",
    "Categorisation",
    "Commonsense",
    "Depth",
    "Detection",
    "GroundedVQA",
    "ImageClassification",
    "ImageDenoising",
    "Inpainting",
    "JsonlRecords",
    "KeyPointEstimation",
    "ListedRecords",
    "Localisation",
    "PaperGroup",
    "Prediction",
    "QuestionAnswering",
    "Referring",
    "RegionCaptioning",
    "Relationship",
    "Sample",
    "SegmentSynthesis",
    "Segmentation",
    "Situation",
    "Summarisation",
    "SurfaceNormals",
    "Synthesis",
    "TaskSamples",
    "TextClassification",
    "TextDenoising",
    "TextEntailment",
    "TextImage",
    "TextImageEvaluator",
    "TextImageTask",
    "TfdsRecords",
    "VisualEntailment",
    "paper_mixture",
]
