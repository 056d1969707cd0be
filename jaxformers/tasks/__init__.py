"""What is learned: a model and its batches, a loss, metrics, evaluation and prediction."""

from jaxformers.tasks.base import Evaluation, JudgedByOutputs, Loss, Task, TaskData
from jaxformers.tasks.losses import label_smoothed_loss, negative_log_likelihood
from jaxformers.tasks.sequence_classification import SequenceClassification
from jaxformers.tasks.translation import Search, Translation, Vocabulary

__all__ = [
    "Evaluation",
    "JudgedByOutputs",
    "Loss",
    "Search",
    "SequenceClassification",
    "Task",
    "TaskData",
    "Translation",
    "Vocabulary",
    "label_smoothed_loss",
    "negative_log_likelihood",
]
