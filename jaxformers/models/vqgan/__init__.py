"""VQGAN: configuration, encoder, quantiser, decoder; discriminator and LPIPS of its training.

Imports `layers`, `sharding`, `arrays`, `errors` and `fields`.
"""

from jaxformers.models.vqgan.config import VQGANConfig
from jaxformers.models.vqgan.discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from jaxformers.models.vqgan.quantizer import Quantized
from jaxformers.models.vqgan.vqgan import VQGAN, VQGANOutput

__all__ = [
    "VQGAN",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "Quantized",
    "VQGANConfig",
    "VQGANOutput",
]
