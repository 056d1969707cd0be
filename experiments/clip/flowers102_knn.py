"""Flowers-102 by nearest neighbours among CLIP's frozen features.

The paper has no such result. K in 1, 3, 5, 7, 11 and 21, cosine and Euclidean distance, uniform
votes and votes by inverse distance: the report lists all on the 6,149 test images; the metrics are
those of the setting that is best on the 1,020 validation images. Voters are the training and the
validation images.

    jaxformers prepare oxford_flowers102 --data-dir DIR
    TFDS_DATA_DIR=DIR jaxformers train experiments/clip/flowers102_knn.py

The weights are fetched from Hugging Face's hub; --task.weights takes a folder or a file, and
another size wants its --task.model. Minutes on a CPU.
The features are kept on disk, so a second run takes seconds.
"""

from jaxformers.data.images import Augmentation, Preprocessing, TfdsImages
from jaxformers.models import CLIPConfig
from jaxformers.tasks import Contrastive, NeighbourEvaluator, PromptedImages
from jaxformers.training import Adam, Cosine, Experiment

DATASET = "oxford_flowers102"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def experiment() -> Experiment:
    """Evaluation of the released weights, without training."""
    return Experiment(
        name="flowers102_knn",
        task=Contrastive(
            model=CLIPConfig.vit_b32(),
            data=PromptedImages(TfdsImages(DATASET, "train"), DATASET),
            augmentation=Augmentation(224, flip=0.0, interpolation="bicubic", alpha="late"),
            # OpenAI's: the shorter side to 224 pixels, the centre crop.
            preprocessing=Preprocessing(
                224,
                rule="small",
                interpolation="bicubic",
                mean=MEAN,
                std=STD,
                crop="round",
                alpha="late",
            ),
            duplicates="positives",
            weights="openai/clip-vit-base-patch32",
        ),
        steps=0,
        optimizer=Adam(b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2),
        schedule=Cosine(peak=1e-5, warmup=50),
        evaluators=(
            NeighbourEvaluator(
                train=TfdsImages(DATASET, "train"),
                dev=TfdsImages(DATASET, "validation"),
                test=TfdsImages(DATASET, "test"),
            ),
        ),
    )
