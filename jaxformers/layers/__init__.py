"""Blocks to build Transformers from; they work in a notebook without a mesh or an experiment."""

from jaxformers.layers.attention import MultiHeadAttention
from jaxformers.layers.backends import choose_backend, log_attention_backends
from jaxformers.layers.basic import (
    Activation,
    Dropout,
    Linear,
    Norm,
    activate,
    drop_path,
    dropout,
)
from jaxformers.layers.blocks import BlockConfig, DecoderBlock, EncoderBlock, FeedForward
from jaxformers.layers.embeddings import (
    PositionEmbedding,
    TokenEmbedding,
    TypeEmbedding,
    grid_sinusoids,
    sinusoids,
)
from jaxformers.layers.execution import Execution
from jaxformers.layers.masks import Mask
from jaxformers.layers.stacks import DecoderStack, EncoderStack

__all__ = [
    "Activation",
    "BlockConfig",
    "DecoderBlock",
    "DecoderStack",
    "Dropout",
    "EncoderBlock",
    "EncoderStack",
    "Execution",
    "FeedForward",
    "Linear",
    "Mask",
    "MultiHeadAttention",
    "Norm",
    "PositionEmbedding",
    "TokenEmbedding",
    "TypeEmbedding",
    "activate",
    "choose_backend",
    "drop_path",
    "dropout",
    "grid_sinusoids",
    "log_attention_backends",
    "sinusoids",
]
