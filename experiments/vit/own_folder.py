"""A ViT on a folder of your own images, in one command.

    jaxformers train experiments/vit/own_folder.py --data FOLDER
    jaxformers train experiments/vit/own_folder.py --data FOLDER --weights WEIGHTS
    jaxformers classify-image runs/vit_own_folder IMAGE

FOLDER has a folder of images for each class, perhaps below train, dev (or val) and test; or images
and a table of their labels: labels.csv, .tsv or .jsonl with the columns file_name and label, or
labels for any number of them. --labels FILE names a table that lies elsewhere. Size, channels,
classes, mean and deviation of the pixels, a development set and the length of the run are set from
the folder. The report has a confusion matrix and the most wrong images.

Without --weights the model is trained from scratch, which takes thousands of images; with published
weights, such as google/vit-base-patch16-224, dozens a class often suffice. --size N sets the side
in pixels, --epochs N the passes over the images, from which the warm-up and the intervals between
evaluations and checkpoints follow; all other options are those of any experiment.
"""

from dataclasses import replace

import jaxformers as jf
from jaxformers.models import ViTConfig
from jaxformers.tasks.images.own_images import OwnImages, classification, own_images
from jaxformers.training import Adam, Checkpointing, Cosine, Experiment, Logging

EPOCHS, FINE_TUNING_EPOCHS = 60, 10


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
    if weights:
        model = _fine_tuned(weights, images)
    else:
        model = ViTConfig.tiny(
            images.patch_size,
            image_size=images.size,
            channels=images.channels,
            classes=images.classes,
            layers=6,
            drop_path=0.1,
        )
    epochs = epochs or (FINE_TUNING_EPOCHS if weights else EPOCHS)
    steps = images.steps(epochs)
    return Experiment(
        name="vit_own_folder",
        task=classification(images, model, weights),
        steps=steps,
        epochs=epochs,
        optimizer=Adam(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.05, decays="kernels"),
        schedule=Cosine(peak=1e-4 if weights else 5e-4, warmup=steps // 10),
        clip_norm=1.0,
        evaluate_every=max(1, steps // 10),
        checkpoint=Checkpointing(every=max(1, steps // 5), keep_last=1),
        logging=Logging(every=10),
    )


def _fine_tuned(weights: str, images: OwnImages) -> ViTConfig:
    """The published model with a new head, for the size of the images."""
    config = jf.from_pretrained(weights)[0].config
    if not isinstance(config, ViTConfig):  # an MAE's encoder
        config = replace(config.encoder, pooling="average", head_norm=True)
    head = dict(classes=images.classes, class_names=(), pre_logits=None, problem_type=None)
    return replace(config, image_size=images.size, **head)
