"""CLIP ViT-L/14, pre-trained from scratch ("CLIP", section 2.5).

The recipe is `pretrain_b32`'s, with the larger towers and their rate.

    jaxformers train experiments/clip/pretrain_l14.py --task.data.path SHARDS
    jaxformers plan experiments/clip/pretrain_l14.py --topology v5p:4x8x8
"""

from dataclasses import replace

from pretrain_b32 import experiment as pretrain_b32

from jaxformers.models import CLIPConfig
from jaxformers.training import Cosine, Experiment


def experiment() -> Experiment:
    """The experiment described above."""
    recipe = pretrain_b32()
    return replace(
        recipe,
        name="clip_pretrain_l14",
        task=replace(recipe.task, model=CLIPConfig.vit_l14()),
        schedule=Cosine(peak=4e-4, warmup=2000),
        remat="dots",
    )
