"""SigLIP B/16, pre-trained from scratch ("SigLIP", section 4).

The data are image and alt-text pairs (WebLI, not public) or your own shards; the tokenizer is that
of a published SigLIP folder, which `--task.tokenizer` names. Rate and decay follow big_vision.

    jaxformers train experiments/clip/siglip_b16.py --task.data.path SHARDS
    jaxformers plan experiments/clip/siglip_b16.py --topology v5p:4x4x4
"""

from jaxformers.data.captions import TarShards
from jaxformers.data.images import Augmentation, InceptionCrop, Preprocessing
from jaxformers.models import CLIPConfig
from jaxformers.tasks import Contrastive
from jaxformers.training import Adam, Cosine, Experiment

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="clip_siglip_b16",
        task=Contrastive(
            model=CLIPConfig.siglip_b16(),
            data=TarShards("data/captions"),
            augmentation=Augmentation(
                224, crop=InceptionCrop(area=(0.9, 1.0)), flip=0.0, interpolation="bicubic"
            ),
            preprocessing=Preprocessing(224, 224, "small", "bicubic", mean=MEAN, std=STD),
            rows=16_384,
            objective="sigmoid",
        ),
        steps=200_000,
        optimizer=Adam(b1=0.9, b2=0.95, eps=1e-8, weight_decay=1e-4),
        schedule=Cosine(peak=1e-3, warmup=20_000),
        precision="bfloat16",
    )
