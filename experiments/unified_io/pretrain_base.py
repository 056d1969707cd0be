"""Unified-IO base, pre-trained by denoising ("Unified-IO", section 3.1).

Paper: 500,000 updates of 2,048 examples; spans of texts (C4, Wikipedia) and three quarters of the
patches of images (ImageNet-21k, and pairs of YFCC15M and CC12M) are restored. 128 random patches of
a picture are read. Adafactor at 0.01 for 10,000 updates, then falling with the inverse square
root, gradients clipped at 1, no dropout. A batch is of texts or of images, half of them each: the
paper states no shares.

The folder of data is described in `jaxformers.tasks.text_image.paper_mixture`; the vocabulary is
T5's, the image tokenizer that of "Taming Transformers".

    jaxformers train experiments/unified_io/pretrain_base.py --data gs://BUCKET/unified_io
    jaxformers plan experiments/unified_io/pretrain_base.py --topology v3:16x16
"""

from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.tasks import TextImage
from jaxformers.tasks.text_image import PRETRAINING_GROUPS, paper_mixture
from jaxformers.training import Adafactor, Checkpointing, Experiment, T5Schedule


def experiment(data: str = "data/unified_io") -> Experiment:
    """The experiment described above, on the data sets in the folder `data`."""
    return Experiment(
        name="unified_io_pretrain_base",
        task=TextImage(
            model=UnifiedIOConfig.base(image_tokenizer=VQGANConfig.f16_16384()),
            mixture=paper_mixture(data, PRETRAINING_GROUPS),
            rows=2048,
            text_length=256,
            target_length=128,
            patches=128,
            bucket_by_modality=True,
            tokenizer="t5-vocabulary",
            image_tokenizer_weights="vqgan_imagenet_f16_16384",
            workers=16,
        ),
        steps=500_000,
        optimizer=Adafactor(),
        schedule=T5Schedule(),
        clip_norm=1.0,
        frozen=("image_tokenizer/.*",),
        remat="dots",
        checkpoint=Checkpointing(every=5000),
    )
