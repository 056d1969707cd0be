"""Flowers-102 by CLIP's zero-shot classification ("CLIP", section 3.1).

Paper, % per class on the 6,149 test images: ViT-B/32 66.7, B/16 70.4, L/14 78.7, RN50 65.9; the
released weights were measured again by open_clip's authors at 66.70, 69.07, 79.23 and 65.22. A
class's vector is the mean of its prompts' unit vectors; class names are matched to the data's
labels by name.

    jaxformers prepare oxford_flowers102 --data-dir DIR
    TFDS_DATA_DIR=DIR jaxformers train experiments/clip/flowers102_zero_shot.py

The weights are fetched from Hugging Face's hub; --task.weights takes a folder or a file, and
another size wants its --task.model. Minutes on a CPU.

The prompt is "a photo of a {}, a type of flower."; TEMPLATES = "homework" takes "An image of {}, a
type of flower". With --steps above 0 the towers are first fine-tuned on images and prompts.
"""

from jaxformers.data.images import Augmentation, Preprocessing, TfdsImages
from jaxformers.models import CLIPConfig
from jaxformers.tasks import Contrastive, PromptedImages, ZeroShotEvaluator
from jaxformers.training import Adam, Cosine, Experiment

DATASET, TEMPLATES = "oxford_flowers102", "published"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def experiment() -> Experiment:
    """Evaluation of the released weights, without training."""
    return Experiment(
        name="flowers102_zero_shot",
        task=Contrastive(
            model=CLIPConfig.vit_b32(),
            data=PromptedImages(TfdsImages(DATASET, "train"), DATASET, TEMPLATES),
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
            ZeroShotEvaluator(
                test=TfdsImages(DATASET, "test"), prompts=DATASET, templates=TEMPLATES
            ),
        ),
    )
