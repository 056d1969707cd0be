"""CLIP and SigLIP: configurations, the image and text towers, and the model of both.

Imports `layers`, `sharding`, `arrays`, `errors` and its sibling models.
"""

from jaxformers.models.clip.clip import CLIP
from jaxformers.models.clip.config import (
    CLIPConfig,
    CLIPImageConfig,
    CLIPTextConfig,
    ModifiedResNetConfig,
)
from jaxformers.models.clip.image_tower import CLIPImageTower
from jaxformers.models.clip.modified_resnet import ModifiedResNet
from jaxformers.models.clip.outputs import CLIPImageOutput, CLIPOutput, CLIPTextOutput
from jaxformers.models.clip.text_tower import CLIPTextTower

__all__ = [
    "CLIP",
    "CLIPConfig",
    "CLIPImageConfig",
    "CLIPImageOutput",
    "CLIPImageTower",
    "CLIPOutput",
    "CLIPTextConfig",
    "CLIPTextOutput",
    "CLIPTextTower",
    "ModifiedResNet",
    "ModifiedResNetConfig",
]
