"""ViT-H/14 pre-trained on JFT-300M ("An Image is Worth 16x16 Words", tables 2, 3 and 5).

Paper: 14 epochs of 303 million images of 18,291 classes, batches of 4,096 at 224 pixels, Adam with
a learning rate of 3e-4 that falls linearly after 10,000 steps, weight decay 0.1; 2,500
TPUv3-core-days (about 30,000 dollars of machine time in 2020), 4,262 exaFLOPs. Fine-tuned: ImageNet
88.55 % (518 pixels, averaged), ReaL 90.72, CIFAR-10 99.50, CIFAR-100 94.55, Pets 97.56, Flowers
99.68, VTAB 77.63.

JFT is not public. Any folder of class folders can replace it:
    jaxformers train experiments/vit/jft_h14.py --task.data.path gs://BUCKET/images \
        --task.model.classes N
"""

from jaxformers.data.images import Augmentation, ImageFolder, Preprocessing
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Experiment, Linear


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="jft_h14",
        task=ImageClassification(
            model=ViTConfig.huge(14, classes=18_291, pre_logits=1280, head_bias=-10.0),
            data=ImageFolder("jft", upright=False),
            augmentation=Augmentation(224),
            preprocessing=Preprocessing(224),
            rows=4096,
            objective="sigmoid",
            workers=16,
        ),
        steps=1_035_645,  # of 303 million images; `epochs` decides for any number
        epochs=14,
        optimizer=Adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1, decays="kernels"),
        schedule=Linear(peak=3e-4, warmup=10_000, end=1e-5),
        clip_norm=1.0,
        remat="dots",
        checkpoint=Checkpointing(every=5000),
    )
