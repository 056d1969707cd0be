"""ResNet-50 trained on ImageNet ("Deep Residual Learning", and the recipe of Goyal et al. 2017).

76.3 % top-1 of the validation set with one central crop (He et al. 2015 report 75.3 for the network
without version 1.5's stride): 90 epochs of batches of 256 (a learning rate of 0.1 for each 256
images), SGD with momentum 0.9, weight decay 1e-4, 5 epochs of warm-up, a cosine decay in place of
the three steps. About 29 hours on 8 P100 GPUs in 2017; an hour with 256 of them.

    jaxformers prepare imagenet2012 --data-dir gs://BUCKET/tfds
    jaxformers train experiments/resnet/imagenet_r50.py --task.data.data-dir gs://BUCKET/tfds
"""

from jaxformers.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    InceptionCrop,
    Preprocessing,
    TfdsImages,
)
from jaxformers.models import ResNetConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Cosine, Experiment, Sgd


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="imagenet_r50",
        task=ImageClassification(
            model=ResNetConfig.resnet50(zero_init=True),
            data=TfdsImages("imagenet2012", "train", test="validation"),
            augmentation=Augmentation(224, crop=InceptionCrop((0.08, 1.0))),
            preprocessing=Preprocessing.central(224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            rows=1024,
            workers=16,
        ),
        steps=112_602,  # of 1,281,167 images; `epochs` decides
        epochs=90,
        optimizer=Sgd(momentum=0.9, nesterov=True, weight_decay=1e-4),
        schedule=Cosine(peak=0.4, warmup=6256),
        checkpoint=Checkpointing(every=5000),
    )
