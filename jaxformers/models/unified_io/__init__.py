"""Unified-IO: configuration, encoder, decoder, and the network of both.

Imports `layers`, `sharding`, `arrays`, `errors` and its sibling models.
"""

from jaxformers.models.unified_io.config import UnifiedIOConfig
from jaxformers.models.unified_io.model import UnifiedIO, UnifiedIOOutput

__all__ = ["UnifiedIO", "UnifiedIOConfig", "UnifiedIOOutput"]
