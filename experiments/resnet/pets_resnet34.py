"""A ResNet-34 of ImageNet fine-tuned on 37 breeds of cats and dogs (Oxford-IIIT Pets).

The usual first lesson of a course: at least 90 % of the official test set (3,669 images) within 10
epochs of the 3,680 for training; tutorials report 93 to 94 % of a random fifth held out. The head
is replaced; images are cut, mirrored and slightly distorted; the curves of loss and accuracy for
training and test are in the run's report. Minutes on a GPU or a TPU.

    jaxformers prepare oxford_iiit_pet --data-dir DIR
    jaxformers train experiments/resnet/pets_resnet34.py --task.data.data-dir DIR
The weights are fetched from Hugging Face's hub; --task.weights FOLDER takes others.
"""

from jaxformers.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    InceptionCrop,
    Preprocessing,
    RandAugment,
    TfdsImages,
)
from jaxformers.models import ResNetConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

BREEDS = 37


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="pets_resnet34",
        task=ImageClassification(
            model=ResNetConfig.resnet34(classes=BREEDS),
            data=TfdsImages("oxford_iiit_pet", "train", dev="test"),
            augmentation=Augmentation(
                224, crop=InceptionCrop((0.35, 1.0)), distortions=RandAugment(2, 5.0)
            ),
            preprocessing=Preprocessing.central(224, mean=IMAGENET_MEAN, std=IMAGENET_STD),
            rows=64,
            smoothing=0.1,
            weights="microsoft/resnet-34",
            workers=4,
        ),
        steps=575,  # of 3,680 images; `epochs` decides
        epochs=10,
        optimizer=Adam(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01),
        schedule=Cosine(peak=5e-4, warmup=57),
        evaluate_every=58,
        checkpoint=Checkpointing(every=58, keep_last=1),
        logging=Logging(every=10),
    )
