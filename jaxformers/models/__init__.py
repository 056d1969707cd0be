"""Models, one file a paper: a frozen configuration with the paper's sizes by name, and the module.

Imports `layers`, `sharding`, `arrays` and `errors`.
"""

from jaxformers.models.bert import (
    Bert,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
)
from jaxformers.models.bert_config import BertConfig
from jaxformers.models.bit import BiT, BiTConfig
from jaxformers.models.clip import (
    CLIP,
    CLIPConfig,
    CLIPImageConfig,
    CLIPTextConfig,
    ModifiedResNetConfig,
)
from jaxformers.models.mae import MAE, MAEConfig, MAEOutput
from jaxformers.models.resnet import ResNet, ResNetConfig
from jaxformers.models.transformer import Transformer, TransformerConfig
from jaxformers.models.unified_io import UnifiedIO, UnifiedIOConfig
from jaxformers.models.vit import ViT, ViTConfig
from jaxformers.models.vqgan import VQGAN, PatchDiscriminator, PatchDiscriminatorConfig, VQGANConfig

__all__ = [
    "CLIP",
    "MAE",
    "VQGAN",
    "Bert",
    "BertConfig",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForSpanExtraction",
    "BertForTokenClassification",
    "BiT",
    "BiTConfig",
    "CLIPConfig",
    "CLIPImageConfig",
    "CLIPTextConfig",
    "MAEConfig",
    "MAEOutput",
    "ModifiedResNetConfig",
    "PatchDiscriminator",
    "PatchDiscriminatorConfig",
    "ResNet",
    "ResNetConfig",
    "Transformer",
    "TransformerConfig",
    "UnifiedIO",
    "UnifiedIOConfig",
    "VQGANConfig",
    "ViT",
    "ViTConfig",
]
