"""BiT-M: ResNet-152x4 pre-trained on ImageNet-21k ("Big Transfer", section 3.2).

Paper: 90 epochs of 14 million images, batches of 4,096 at 224 pixels, SGD with momentum 0.9 and a
learning rate of 0.03 for each 256 images, weight decay 1e-4, 5,000 steps of warm-up, a tenth of the
learning rate after 30, 60 and 80 epochs. Fine-tuned by BiT-HyperRule: ImageNet 85.39 %, CIFAR-10
98.91, CIFAR-100 92.17, Pets 94.46, Flowers 99.30. The larger BiT-L took 9,900 TPUv3-core-days.

ImageNet-21k is not in TFDS: its tar files are unpacked into a folder for each class, and
    jaxformers train experiments/resnet/bit_i21k_r152x4.py --task.data.path gs://BUCKET/imagenet21k
trains on it. `jaxformers.training.optim.hyperrule` gives the rule for fine-tuning.
"""

from jaxformers.data.images import Augmentation, ImageFolder, Preprocessing
from jaxformers.models import BiTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Experiment, Sgd, Steps


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="bit_i21k_r152x4",
        task=ImageClassification(
            model=BiTConfig.r152x4(classes=21_843),
            data=ImageFolder("imagenet21k", upright=False),
            augmentation=Augmentation(224),
            preprocessing=Preprocessing(224),
            rows=4096,
            objective="sigmoid",
            workers=16,
        ),
        steps=311_949,  # of 14,197,122 images; `epochs` decides for any number
        epochs=90,
        optimizer=Sgd(momentum=0.9, weight_decay=1e-4),
        schedule=Steps(peak=0.48, warmup=5000, boundaries=(30 / 90, 60 / 90, 80 / 90)),
        remat="full",
        checkpoint=Checkpointing(every=5000),
    )
