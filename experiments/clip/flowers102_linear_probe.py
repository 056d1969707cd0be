"""Flowers-102 by a linear probe on CLIP's frozen features ("CLIP", section 3.2, appendix A.3).

Paper, % per class on the 6,149 test images: ViT-B/32 96.9, B/16 98.1, L/14 99.2, RN50 96.1.
Logistic regression on the features before the projection, its penalty searched among 97 on the
1,020 validation images, then fitted on these and the 1,020 training images.

    jaxformers prepare oxford_flowers102 --data-dir DIR
    TFDS_DATA_DIR=DIR jaxformers train experiments/clip/flowers102_linear_probe.py

The weights are fetched from Hugging Face's hub; --task.weights takes a folder or a file, and
another size wants its --task.model. Minutes on a CPU.
The features are kept on disk, so a second run takes seconds.
"""

from jaxformers.data.images import Augmentation, Preprocessing, TfdsImages
from jaxformers.models import CLIPConfig
from jaxformers.tasks import Contrastive, LinearProbeEvaluator, PromptedImages
from jaxformers.training import Adam, Cosine, Experiment

DATASET = "oxford_flowers102"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def experiment() -> Experiment:
    """Evaluation of the released weights, without training."""
    return Experiment(
        name="flowers102_linear_probe",
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
            LinearProbeEvaluator(
                train=TfdsImages(DATASET, "train"),
                dev=TfdsImages(DATASET, "validation"),
                test=TfdsImages(DATASET, "test"),
            ),
        ),
    )
