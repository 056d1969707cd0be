"""A pre-trained ViT-B/16 fine-tuned on another set ("An Image is Worth 16x16 Words", section 4.1).

Paper, ViT-B/16 of ImageNet-21k at 384 pixels (table 5): CIFAR-10 98.95 %, CIFAR-100 91.67, Pets
94.43, Flowers 99.38, ImageNet 83.97, ReaL 88.35. SGD with momentum, batches of 512, a cosine, no
weight decay, gradients clipped to norm 1; 10,000 steps on the CIFARs, 500 on Pets and Flowers,
20,000 on ImageNet, the rate chosen on a held-out part of the training set. Google's own replication
from the published file: CIFAR-10 99.02, CIFAR-100 92.06, ImageNet 84.53. Under an hour on 8 TPU
chips for the CIFARs.

The set, its classes, the steps and the weights are options; `tune` tries the paper's rates:
    jaxformers prepare cifar10 --data-dir DIR
    jaxformers train experiments/vit/transfer.py --task.data.data-dir DIR
    jaxformers tune experiments/vit/transfer.py --task.data.data-dir DIR
    jaxformers train experiments/vit/transfer.py --name transfer_pets \
        --task.data.name oxford_iiit_pet --task.data.split "train[:90%]" \
        --task.data.dev "train[90%:]" --task.model.classes 37 --steps 500 --schedule.warmup 100
The weights are fetched from Hugging Face's hub; --task.weights takes a folder, a run or one of
Google's .npz files. Pictures are cut from 448 pixels to 384 and mirrored, as big_vision does.
"""

from jaxformers.data.images import Augmentation, Preprocessing, RandomCrop, TfdsImages
from jaxformers.models import ViTConfig
from jaxformers.tasks import ImageClassification
from jaxformers.training import Checkpointing, Cosine, Experiment, Sgd


def grid() -> dict[str, tuple[float, ...]]:
    """The paper's learning rates for small sets, for `jaxformers tune`."""
    return {"schedule.peak": (0.001, 0.003, 0.01, 0.03)}


def experiment() -> Experiment:
    """The experiment described above."""
    return Experiment(
        name="transfer",
        task=ImageClassification(
            # Exact GELU and this epsilon are those of Hugging Face's port.
            model=ViTConfig.base(
                16, image_size=384, classes=10, activation="gelu", norm_epsilon=1e-12
            ),
            data=TfdsImages("cifar10", "train[:98%]", dev="train[98%:]"),
            augmentation=Augmentation(384, crop=RandomCrop(448)),
            preprocessing=Preprocessing(384, 448, "small"),
            rows=512,
            weights="google/vit-base-patch16-224-in21k",
            workers=8,
        ),
        steps=10_000,
        optimizer=Sgd(momentum=0.9),
        schedule=Cosine(peak=0.01, warmup=500),
        clip_norm=1.0,
        evaluate_every=1000,
        checkpoint=Checkpointing(every=1000),
    )
