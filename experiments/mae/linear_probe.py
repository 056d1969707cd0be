"""A linear classifier on a frozen MAE's class token ("Masked Autoencoders", appendix A.1).

Paper: ViT-B 68.0 % of ImageNet, ViT-L 75.8, ViT-H 76.6 (the released code's own runs 67.8, 76.0 and
77.2). 90 epochs (50 for L and H) of batches of 16,384; LARS with a learning rate of 6.4 (0.1 for
each 256 images), 10 epochs of warm-up, a cosine decay to 0, no weight decay; crops and mirroring
alone. A batch norm without parameters stands before the classifier.

    jaxformers train experiments/mae/linear_probe.py --task.data.data-dir gs://BUCKET/tfds \
        --task.weights runs/mae_pretrain_base
"""

from jaxformers.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    InceptionCrop,
    Preprocessing,
    TfdsImages,
)
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Cosine, Experiment, Lars

STEPS_AN_EPOCH = 1_281_167 / 16_384


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="mae_linear_probe",
        task=ImageClassification(
            model=ViTConfig.base(
                16, positions="sincos2d_mae", activation="gelu", head_batch_norm=True
            ),
            data=TfdsImages("imagenet2012", "train", test="validation"),
            augmentation=Augmentation(
                224, crop=InceptionCrop((0.08, 1.0)), interpolation="bicubic"
            ),
            preprocessing=Preprocessing.central(
                224, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bicubic"
            ),
            rows=16_384,
            weights="runs/mae_pretrain_base",
            resize_positions="bicubic",
            workers=16,
        ),
        steps=7037,  # of 1,281,167 images; `epochs` decides
        epochs=90,
        frozen=(r"(?!head/).*",),
        optimizer=Lars(momentum=0.9, trust=0.001),
        schedule=Cosine(peak=6.4, warmup=round(10 * STEPS_AN_EPOCH)),
        checkpoint=Checkpointing(every=1000),
    )
