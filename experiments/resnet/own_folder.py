"""A ResNet on a folder of your own images, in one command.

    jaxformers train experiments/resnet/own_folder.py --data FOLDER
    jaxformers train experiments/resnet/own_folder.py --data FOLDER --weights microsoft/resnet-34

What FOLDER holds and what is set from it is in `experiments/vit/own_folder.py`. From scratch a
ResNet needs fewer images than a ViT: ResNet-18, or for images below 96 pixels one of 3 stages.
"""

from dataclasses import replace

import jaxformers as jf
from jaxformers.models import ResNetConfig
from jaxformers.tasks.images.own_images import classification, own_images
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

EPOCHS, FINE_TUNING_EPOCHS = 40, 10
SMALL_IMAGES = 96


def experiment(
    data: str | None = None,
    labels: str | None = None,
    weights: str | None = None,
    size: int | None = None,
    epochs: float | None = None,
) -> Experiment:
    """The run on the folder `data`."""
    preprocessing = jf.load_images(weights) if weights else None
    images = own_images(data, labels, size, preprocessing)
    shape = dict(image_size=images.size, channels=images.channels, classes=images.classes)
    if weights:
        config = jf.from_pretrained(weights)[0].config
        model = replace(config, **shape, class_names=(), problem_type=None)
    elif images.size < SMALL_IMAGES:
        model = ResNetConfig(block="basic", depths=(2, 2, 2), width=16, stem="small", **shape)
    else:
        model = ResNetConfig.resnet18(**shape)
    epochs = epochs or (FINE_TUNING_EPOCHS if weights else EPOCHS)
    steps = images.steps(epochs)
    return Experiment(
        name="resnet_own_folder",
        task=classification(images, model, weights),
        steps=steps,
        epochs=epochs,
        optimizer=Adam(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05, decays="kernels"),
        schedule=Cosine(peak=5e-4 if weights else 2e-3, warmup=steps // 10),
        evaluate_every=max(1, steps // 10),
        checkpoint=Checkpointing(every=max(1, steps // 5), keep_last=1),
        logging=Logging(every=10),
    )
