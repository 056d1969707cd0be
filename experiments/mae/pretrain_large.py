"""MAE with ViT-L/16 pre-trained on ImageNet ("Masked Autoencoders", section 4, appendix A.1).

Paper: 1,600 epochs (800 in its ablations) of batches of 4,096 at 224 pixels, three quarters of the
patches hidden, each patch's pixels normalised; AdamW (0.9, 0.95), weight decay 0.05, a learning
rate of 2.4e-3 (1.5e-4 for each 256 images) after 40 epochs of warm-up, a cosine decay to 0; crops
of 20 to 100 % of an image and mirroring. Fine-tuned 85.9 % on ImageNet, linear probe 75.8 %. It
took 42 hours for 800 epochs on 64 V100 GPUs.

    jaxformers prepare imagenet2012 --data-dir gs://BUCKET/tfds
    jaxformers train experiments/mae/pretrain_large.py --task.data.data-dir gs://BUCKET/tfds
then `experiments/mae/finetune.py` and `linear_probe.py`.
"""

from jaxformers.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    InceptionCrop,
    Preprocessing,
    TfdsImages,
)
from jaxformers.models import MAEConfig
from jaxformers.tasks import MaskedImage
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment

STEPS_AN_EPOCH = 1_281_167 / 4096


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="mae_pretrain_large",
        task=MaskedImage(
            model=MAEConfig.large(16),
            data=TfdsImages("imagenet2012", "train", test="validation"),
            dev=TfdsImages("imagenet2012", "validation", test="", limit=5000),
            augmentation=Augmentation(224, crop=InceptionCrop((0.2, 1.0)), interpolation="bicubic"),
            preprocessing=Preprocessing.central(
                224, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic"
            ),
            rows=4096,
            workers=16,
        ),
        steps=250_228,  # of 1,281,167 images; `epochs` decides
        epochs=800,
        optimizer=Adam(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05),
        schedule=Cosine(peak=2.4e-3, warmup=round(40 * STEPS_AN_EPOCH)),
        checkpoint=Checkpointing(every=5000),
    )
