"""One file a paper: a frozen configuration with the paper's sizes by name, and the module."""

from jaxformers.models.transformer import Transformer, TransformerConfig

__all__ = ["Transformer", "TransformerConfig"]
