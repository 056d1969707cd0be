"""CLIP RN50, pre-trained from scratch ("CLIP", section 2.5).

The recipe is `pretrain_b32`'s, with a ResNet for the images and the ResNets' betas and epsilon.

    jaxformers train experiments/clip/pretrain_rn50.py --task.data.path SHARDS
    jaxformers plan experiments/clip/pretrain_rn50.py --topology v5p:4x4x8
"""

from dataclasses import replace

from pretrain_b32 import experiment as pretrain_b32

from jaxformers.models import CLIPConfig
from jaxformers.training import Adam, Experiment


def experiment() -> Experiment:
    """The experiment described above."""
    recipe = pretrain_b32()
    return replace(
        recipe,
        name="clip_pretrain_rn50",
        task=replace(recipe.task, model=CLIPConfig.rn50()),
        optimizer=Adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.2, decays="matrices"),
    )
