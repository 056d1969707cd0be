"""Blocks to build Transformers from; they work in a notebook without a mesh or an experiment."""

from jaxformers.layers.activations import Activation, activate
from jaxformers.layers.attention.backends import choose_backend, log_attention_backends
from jaxformers.layers.attention.masks import Mask
from jaxformers.layers.attention.multi_head import MultiHeadAttention
from jaxformers.layers.blocks import BlockConfig, BlockInit, DecoderBlock, EncoderBlock, FeedForward
from jaxformers.layers.cpu import cpu_forms
from jaxformers.layers.dropout import Dropout, drop_path, dropout
from jaxformers.layers.embeddings import (
    PositionEmbedding,
    TokenEmbedding,
    TypeEmbedding,
    grid_sinusoids,
    sinusoids,
)
from jaxformers.layers.execution import Execution
from jaxformers.layers.linear import Linear
from jaxformers.layers.norm import Norm
from jaxformers.layers.stacks import DecoderStack, EncoderStack

__all__ = [
    "Activation",
    "BlockConfig",
    "BlockInit",
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
    "cpu_forms",
    "drop_path",
    "dropout",
    "grid_sinusoids",
    "log_attention_backends",
    "sinusoids",
]
