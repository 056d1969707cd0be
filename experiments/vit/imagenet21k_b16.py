"""ViT-B/16 pre-trained on ImageNet-21k ("An Image is Worth 16x16 Words", table 3).

Paper: 90 epochs of 14 million images, batches of 4,096 at 224 pixels, Adam with a learning rate of
1e-3 that falls linearly after 10,000 steps, weight decay 0.03, dropout 0.1. Fine-tuned at 384
pixels: ImageNet 83.97 %, CIFAR-10 98.95, CIFAR-100 91.67, Pets 94.43, Flowers 99.38 (table 5); see
`experiments/vit/transfer.py`. About 230 TPUv3-core-days for L/16 on this data (table 2).

ImageNet-21k is not in TFDS: its tar files are unpacked into a folder for each class, and
    jaxformers train experiments/vit/imagenet21k_b16.py --task.data.path gs://BUCKET/imagenet21k
trains on it (on a folder with another number of classes with --task.model.classes N). The loss is
the sum of the classes' binary cross-entropies with a bias of -10, as big_vision trains on it.
"""

from jaxformers.data.images import Augmentation, ImageFolder, Preprocessing
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Experiment, Linear


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="imagenet21k_b16",
        task=ImageClassification(
            model=ViTConfig.base(16, classes=21_843, pre_logits=768, head_bias=-10.0, dropout=0.1),
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
