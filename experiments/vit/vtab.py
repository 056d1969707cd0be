"""VTAB-1k: a pre-trained ViT-L/16 fine-tuned on 19 tasks of 1,000 images each (section 4.2).

Paper, ViT-L/16 of ImageNet-21k (tables 2 and 9): mean 72.72 %, in the groups' order Caltech 90.8,
CIFAR 84.1, DTD 74.1, Flowers 99.3, Pets 92.7, SUN 61.0, SVHN 80.9; Camelyon 82.5, EuroSAT 95.6,
Resisc 85.2, Retinopathy 75.3; ClevrCount 70.3, ClevrDistance 56.1, DMLab 41.9, dSpritesLocation
74.7, dSpritesOrientation 64.9, KITTI 79.9, smallNORB 30.5 and 41.7. For all tasks alike: 2,500
steps of 512 at 384 pixels, SGD with a learning rate of 0.01 and a cosine. Some hours on 8 TPU
chips.

One command runs all 19 one after another; each is a run in a folder within the first's. The sets
are prepared once: `jaxformers prepare NAME --data-dir DIR` for each name that the run asks for.
    jaxformers train experiments/vit/vtab.py
A set that is missing is named with its command; the run goes on from there once it is prepared
($TFDS_DATA_DIR is the folder of prepared sets). At the end `together.md` in the run's folder has
the mean, the three groups' means and a bar chart.
"""

from jaxformers.data.images import Augmentation, Preprocessing, Vtab, WholeImage
from jaxformers.data.images.sources.vtab import TASKS
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Cosine, Experiment, Sgd


def experiment() -> Experiment:
    """Fine-tuning on the first task, followed by a run for each of the remaining ones."""
    first, *follow_ups = TASKS
    return fine_tuning(first, "vtab", tuple(fine_tuning(task, task) for task in follow_ups))


def fine_tuning(task: str, name: str, after: tuple[Experiment, ...] = ()) -> Experiment:
    """Fine-tuning on a task of VTAB."""
    data = Vtab(task)
    return Experiment(
        name=name,
        task=ImageClassification(
            # Exact GELU and this epsilon are those of Hugging Face's port.
            model=ViTConfig.large(
                16, image_size=384, classes=data.classes, activation="gelu", norm_epsilon=1e-12
            ),
            data=data,
            augmentation=Augmentation(384, crop=WholeImage(), flip=0.0),
            preprocessing=Preprocessing(384),
            rows=512,
            weights="google/vit-large-patch16-224-in21k",
            workers=8,
        ),
        steps=2500,
        optimizer=Sgd(momentum=0.9),
        schedule=Cosine(peak=0.01, warmup=500),
        clip_norm=1.0,
        checkpoint=Checkpointing(every=2500, keep_last=1),
        after=after,
    )
