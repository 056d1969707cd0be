"""The landmark Transformers in JAX: proven against their references, shardable, practical.

`import jaxformers as jf` and use the names below; the rooms (`jf.layers`, `jf.sharding`, ...) hold
the rest. Names are imported when they are first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxformers import layers as layers
    from jaxformers import sharding as sharding
    from jaxformers.api import answer as answer
    from jaxformers.api import answer_about as answer_about
    from jaxformers.api import ask as ask
    from jaxformers.api import caption as caption
    from jaxformers.api import classify as classify
    from jaxformers.api import classify_images as classify_images
    from jaxformers.api import depth as depth
    from jaxformers.api import detect as detect
    from jaxformers.api import embed as embed
    from jaxformers.api import embed_images as embed_images
    from jaxformers.api import explain as explain
    from jaxformers.api import fill_mask as fill_mask
    from jaxformers.api import from_nnx as from_nnx
    from jaxformers.api import from_pretrained as from_pretrained
    from jaxformers.api import inpaint as inpaint
    from jaxformers.api import keypoints as keypoints
    from jaxformers.api import load_images as load_images
    from jaxformers.api import load_text as load_text
    from jaxformers.api import locate as locate
    from jaxformers.api import normals as normals
    from jaxformers.api import paint as paint
    from jaxformers.api import probe as probe
    from jaxformers.api import save_pretrained as save_pretrained
    from jaxformers.api import search as search
    from jaxformers.api import segment as segment
    from jaxformers.api import tag as tag
    from jaxformers.api import to_nnx as to_nnx
    from jaxformers.api import translate as translate
    from jaxformers.api import zero_shot as zero_shot
    from jaxformers.decoding import beam_search as beam_search
    from jaxformers.decoding import greedy as greedy
    from jaxformers.models import CLIP as CLIP
    from jaxformers.models import MAE as MAE
    from jaxformers.models import VQGAN as VQGAN
    from jaxformers.models import Bert as Bert
    from jaxformers.models import BertConfig as BertConfig
    from jaxformers.models import BertForPreTraining as BertForPreTraining
    from jaxformers.models import BertForSequenceClassification as BertForSequenceClassification
    from jaxformers.models import BertForSpanExtraction as BertForSpanExtraction
    from jaxformers.models import BertForTokenClassification as BertForTokenClassification
    from jaxformers.models import BiT as BiT
    from jaxformers.models import BiTConfig as BiTConfig
    from jaxformers.models import CLIPConfig as CLIPConfig
    from jaxformers.models import MAEConfig as MAEConfig
    from jaxformers.models import ResNet as ResNet
    from jaxformers.models import ResNetConfig as ResNetConfig
    from jaxformers.models import Transformer as Transformer
    from jaxformers.models import TransformerConfig as TransformerConfig
    from jaxformers.models import UnifiedIO as UnifiedIO
    from jaxformers.models import UnifiedIOConfig as UnifiedIOConfig
    from jaxformers.models import ViT as ViT
    from jaxformers.models import ViTConfig as ViTConfig
    from jaxformers.models import VQGANConfig as VQGANConfig
    from jaxformers.planning import plan as plan
    from jaxformers.runs.tune import tune as tune
    from jaxformers.training import Experiment as Experiment
    from jaxformers.training.loop import train as train

_NAMES = {
    "Bert": "models",
    "BertConfig": "models",
    "BertForPreTraining": "models",
    "BertForSequenceClassification": "models",
    "BertForSpanExtraction": "models",
    "BertForTokenClassification": "models",
    "BiT": "models",
    "BiTConfig": "models",
    "CLIP": "models",
    "CLIPConfig": "models",
    "Experiment": "training",
    "MAE": "models",
    "MAEConfig": "models",
    "ResNet": "models",
    "ResNetConfig": "models",
    "Transformer": "models",
    "TransformerConfig": "models",
    "UnifiedIO": "models",
    "UnifiedIOConfig": "models",
    "VQGAN": "models",
    "VQGANConfig": "models",
    "ViT": "models",
    "ViTConfig": "models",
    "answer": "api",
    "answer_about": "api",
    "ask": "api",
    "beam_search": "decoding",
    "caption": "api",
    "classify": "api",
    "classify_images": "api",
    "depth": "api",
    "detect": "api",
    "embed": "api",
    "embed_images": "api",
    "explain": "api",
    "fill_mask": "api",
    "from_nnx": "api",
    "from_pretrained": "api",
    "greedy": "decoding",
    "inpaint": "api",
    "keypoints": "api",
    "load_images": "api",
    "load_text": "api",
    "locate": "api",
    "normals": "api",
    "paint": "api",
    "plan": "planning",
    "probe": "api",
    "save_pretrained": "api",
    "search": "api",
    "segment": "api",
    "tag": "api",
    "to_nnx": "api",
    "train": "training.loop",
    "translate": "api",
    "tune": "runs.tune",
    "zero_shot": "api",
}
_ROOMS = (
    "costs",
    "data",
    "decoding",
    "errors",
    "evaluation",
    "interpret",
    "layers",
    "models",
    "planning",
    "pretrained",
    "sharding",
    "tasks",
    "text",
    "training",
)

__all__ = [*_NAMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"jaxformers.{_NAMES[name]}"), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"jaxformers.{name}")
    else:
        raise AttributeError(f"module 'jaxformers' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
