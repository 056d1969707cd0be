"""The families of the library, one line each; importing `jaxformers.pretrained` registers them."""

from __future__ import annotations

from jaxformers.pretrained.bert.bert_family import BERT
from jaxformers.pretrained.bit import BIT
from jaxformers.pretrained.clip.clip_family import CLIP_FAMILY, CLIP_IMAGE_FAMILY, CLIP_TEXT_FAMILY
from jaxformers.pretrained.marian.transformer_family import TRANSFORMER
from jaxformers.pretrained.resnet import RESNET
from jaxformers.pretrained.unified_io.unified_io_family import UNIFIED_IO
from jaxformers.pretrained.vit.vit_family import MASKED_AUTOENCODER, VIT
from jaxformers.pretrained.vqgan.vqgan_family import VQGAN_FAMILY

BUILTIN_FAMILIES = (
    TRANSFORMER,
    BERT,
    BIT,
    RESNET,
    VIT,
    MASKED_AUTOENCODER,
    CLIP_FAMILY,
    CLIP_IMAGE_FAMILY,
    CLIP_TEXT_FAMILY,
    VQGAN_FAMILY,
    UNIFIED_IO,
)
