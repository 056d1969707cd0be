"""A tiny ViT on bundled Fashion-MNIST, with and without positions: minutes on two CPU cores.

9,000 grey images of clothes, 28 x 28, in ten classes, cut into 16 patches of 7 x 7. The second run
has no position embedding: its patches are an unordered set to it. Logistic regression on the pixels
reaches 84.9 % of the test images, support vectors 87.4 %, this ViT 89.4 %. Mixup and CutMix keep it
from memorising so few images.

    jaxformers train experiments/vit/demo.py
    jaxformers explain runs/vit_demo --image PICTURE
    jaxformers compare runs/vit_demo runs/vit_demo/without_positions runs/resnet_demo
"""

from dataclasses import replace

from jaxformers.data.images import Augmentation, BundledFashionMnist, PaddedCrop, Preprocessing
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

MODEL = ViTConfig(
    image_size=28,
    patch_size=7,
    channels=1,
    width=96,
    heads=12,  # many narrow heads learn positions soonest
    feed_forward=384,
    layers=4,
    positions="sincos2d",
    classes=10,
)


def experiment() -> Experiment:
    """Training with position embeddings, then without."""
    without = training("without_positions", replace(MODEL, positions="none"))
    return replace(training("vit_demo", MODEL), after=(without,))


def training(name: str, model: ViTConfig) -> Experiment:
    """The training of `model` on the bundled images."""
    return Experiment(
        name=name,
        task=ImageClassification(
            model=model,
            data=BundledFashionMnist(),
            augmentation=Augmentation(28, channels=1, crop=PaddedCrop(1)),
            preprocessing=Preprocessing(28, channels=1, mean=(0.286,), std=(0.353,)),
            rows=64,
            mixup=0.2,
            cutmix=1.0,
        ),
        steps=8437,
        epochs=60,
        optimizer=Adam(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05, decays="kernels"),
        schedule=Cosine(peak=2e-3, warmup=200),
        clip_norm=1.0,
        evaluate_every=281,
        checkpoint=Checkpointing(every=2109, keep_last=1),
        logging=Logging(every=20),
    )
