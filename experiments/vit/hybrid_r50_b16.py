"""R50+ViT-B/16 pre-trained on ImageNet-21k ("An Image is Worth 16x16 Words", section 3.1).

A ResNet's first three stages replace the patch embedding. The paper trains it on JFT (7 epochs, a
learning rate of 8e-4, weight decay 0.1); the published file is of ImageNet-21k, trained as ViT-B/16
there, and gives ImageNet 85.08 %, CIFAR-10 98.94, CIFAR-100 92.30 when it is fine-tuned at 384
pixels with dropout 0.1.

ImageNet-21k is not in TFDS: its tar files are unpacked into a folder for each class, and
    jaxformers train experiments/vit/hybrid_r50_b16.py --task.data.path gs://BUCKET/imagenet21k
"""

from jaxformers.data.images import Augmentation, ImageFolder, Preprocessing
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Experiment, Linear


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="hybrid_r50_b16",
        task=ImageClassification(
            model=ViTConfig.hybrid_base(
                classes=21_843,
                pre_logits=768,
                head_bias=-10.0,
                dropout=0.1,
            ),
            data=ImageFolder("imagenet21k", upright=False),
            augmentation=Augmentation(224),
            preprocessing=Preprocessing(224),
            rows=4096,
            objective="sigmoid",
            workers=16,
        ),
        steps=311_949,  # of 14,197,122 images; `epochs` decides for any number
        epochs=90,
        optimizer=Adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.03, decays="kernels"),
        schedule=Linear(peak=1e-3, warmup=10_000, end=1e-5),
        clip_norm=1.0,
        checkpoint=Checkpointing(every=5000),
    )
