"""What is learned: a model and its batches, a loss, metrics, evaluation and prediction."""

from jaxformers.tasks.base import Loss, Task, TaskData
from jaxformers.tasks.evaluator import Evaluation, Evaluator, OutputEvaluator
from jaxformers.tasks.image_text.contrastive import Contrastive
from jaxformers.tasks.image_text.prompted_images import PromptedImages
from jaxformers.tasks.image_text.retrieval import RetrievalEvaluator
from jaxformers.tasks.image_text.transfer import (
    LinearProbeEvaluator,
    NeighbourEvaluator,
    ZeroShotEvaluator,
)
from jaxformers.tasks.image_tokenizer.image_tokenizer import ImageTokenizer
from jaxformers.tasks.image_tokenizer.perceptual import ImageGradients, Lpips
from jaxformers.tasks.image_tokenizer.tokenizer_loss import VQGANLoss
from jaxformers.tasks.images.image_classification import ImageClassification
from jaxformers.tasks.images.masked_image import MaskedImage
from jaxformers.tasks.losses import label_smoothed_loss, negative_log_likelihood
from jaxformers.tasks.processor import Processor, load_processor
from jaxformers.tasks.text.masked_language import MaskedLanguage, WordPieces
from jaxformers.tasks.text.sequence_classification import SequenceClassification
from jaxformers.tasks.text.span_extraction import SpanExtraction
from jaxformers.tasks.text.tagging.token_classification import TokenClassification
from jaxformers.tasks.text_image.multi_task import TextImage
from jaxformers.tasks.translation.translation import Translation, Vocabulary
from jaxformers.tasks.translation.translation_evaluation import Search

__all__ = [
    "Contrastive",
    "Evaluation",
    "Evaluator",
    "ImageClassification",
    "ImageGradients",
    "ImageTokenizer",
    "LinearProbeEvaluator",
    "Loss",
    "Lpips",
    "MaskedImage",
    "MaskedLanguage",
    "NeighbourEvaluator",
    "OutputEvaluator",
    "Processor",
    "PromptedImages",
    "RetrievalEvaluator",
    "Search",
    "SequenceClassification",
    "SpanExtraction",
    "Task",
    "TaskData",
    "TextImage",
    "TokenClassification",
    "Translation",
    "VQGANLoss",
    "Vocabulary",
    "WordPieces",
    "ZeroShotEvaluator",
    "label_smoothed_loss",
    "load_processor",
    "negative_log_likelihood",
]
