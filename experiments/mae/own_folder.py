"""An MAE on a folder of your own images, in one command, and the ViT that it becomes.

    jaxformers train experiments/mae/own_folder.py --data FOLDER

The images need no labels to pre-train on. Where they have them, a second run fine-tunes the encoder
on them. What FOLDER holds and what is set from it is in `experiments/vit/own_folder.py`.
"""

from dataclasses import replace

from jaxformers.models import MAEConfig
from jaxformers.tasks.images.own_images import OwnImages, classification, masked_images, own_images
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

EPOCHS, FINE_TUNING_EPOCHS = 200, 30


def experiment(
    data: str | None = None,
    labels: str | None = None,
    size: int | None = None,
    epochs: float = EPOCHS,
) -> Experiment:
    """Pre-training on the folder `data`, and fine-tuning where it has labels."""
    images = own_images(data, labels, size)
    model = MAEConfig.sized(
        "tiny",
        images.patch_size,
        image_size=images.size,
        channels=images.channels,
        layers=6,
        decoder_width=128,
        decoder_layers=2,
        decoder_heads=4,
        decoder_feed_forward=512,
    )
    steps = images.steps(epochs)
    labelled = images.classes > 1 or images.multi_label
    return Experiment(
        name="mae_own_folder",
        task=masked_images(images, model),
        steps=steps,
        epochs=epochs,
        optimizer=Adam(b1=0.9, b2=0.95, eps=1e-8, weight_decay=0.05),
        schedule=Cosine(peak=1e-3, warmup=steps // 10),
        evaluate_every=max(1, steps // 10),
        checkpoint=Checkpointing(every=max(1, steps // 5), keep_last=1),
        logging=Logging(every=10),
        after=(fine_tuning(images, model),) if labelled else (),
    )


def fine_tuning(images: OwnImages, model: MAEConfig) -> Experiment:
    """Fine-tuning under a new head, with smaller learning rates in lower layers."""
    steps = images.steps(FINE_TUNING_EPOCHS)
    encoder = replace(model.encoder, classes=images.classes, pooling="average", head_norm=True)
    return Experiment(
        name="fine_tuned",
        task=replace(classification(images, encoder), weights="previous"),
        steps=steps,
        epochs=FINE_TUNING_EPOCHS,
        optimizer=Adam(
            b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.05, decays="kernels", layer_decay=0.75
        ),
        schedule=Cosine(peak=1e-3, warmup=steps // 10),
        evaluate_every=max(1, steps // 10),
        checkpoint=Checkpointing(every=max(1, steps // 5), keep_last=1),
        logging=Logging(every=10),
    )
