"""One file a paper: a frozen configuration with the paper's sizes by name, and the module."""

from jaxformers.models.bert import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
)
from jaxformers.models.transformer import Transformer, TransformerConfig

__all__ = [
    "Bert",
    "BertConfig",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForSpanExtraction",
    "Transformer",
    "TransformerConfig",
]
