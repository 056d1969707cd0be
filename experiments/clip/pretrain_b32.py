"""CLIP ViT-B/32, pre-trained from scratch ("CLIP", section 2.5).

The data are 400 million pairs (WebImageText, not public) or your own shards in WebDataset's
layout: 32 epochs of 32,768 pairs a step. Rates, betas and decay are those of table 18 and of
open_clip's training code, in which biases, norms, the scale and the class token do not decay; crops
keep 90 to 100 % of an image. ViT-L/14's and RN50's recipes are this one but for what they state.

    jaxformers train experiments/clip/pretrain_b32.py --task.data.path SHARDS
    jaxformers plan experiments/clip/pretrain_b32.py --topology v5p:4x4x8
"""

from jaxformers.data.captions import TarShards
from jaxformers.data.images import Augmentation, InceptionCrop, Preprocessing
from jaxformers.models import CLIPConfig
from jaxformers.tasks import Contrastive
from jaxformers.training import Adam, Cosine, Experiment

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="clip_pretrain_b32",
        task=Contrastive(
            model=CLIPConfig.vit_b32(),
            data=TarShards("data/captions"),
            augmentation=Augmentation(
                224, crop=InceptionCrop(area=(0.9, 1.0)), flip=0.0, interpolation="bicubic"
            ),
            preprocessing=Preprocessing(224, 224, "small", "bicubic", mean=MEAN, std=STD),
            rows=32_768,
        ),
        steps=390_625,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2, decays="matrices"),
        schedule=Cosine(peak=5e-4, warmup=2000),
        precision="bfloat16",
    )
