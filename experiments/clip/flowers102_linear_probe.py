"""Flowers-102 by a linear probe on CLIP's frozen features ("CLIP", section 3.2, appendix A.3).

Paper, % per class on the 6,149 test images: ViT-B/32 96.9, B/16 98.1, L/14 99.2, RN50 96.1.
Logistic regression on the features before the projection, its penalty searched among 97 on the
1,020 validation images, then fitted on these and the 1,020 training images.

    jaxformers prepare oxford_flowers102 --data-dir DIR
    TFDS_DATA_DIR=DIR jaxformers train experiments/clip/flowers102_linear_probe.py

Weights and preprocessing are those of `flowers102_zero_shot`, fetched from Hugging Face's hub;
--task.weights takes a folder or a file, and another size wants its --task.model. Minutes on a CPU.
The features are kept on disk, so a second run takes seconds.
"""

from dataclasses import replace

from flowers102_zero_shot import DATASET
from flowers102_zero_shot import experiment as zero_shot

from jaxformers.data.images import TfdsImages
from jaxformers.tasks import LinearProbeEvaluator
from jaxformers.training import Experiment


def experiment() -> Experiment:
    """Evaluation of the released weights, without training."""
    return replace(
        zero_shot(),
        name="flowers102_linear_probe",
        evaluators=(
            LinearProbeEvaluator(
                train=TfdsImages(DATASET, "train"),
                dev=TfdsImages(DATASET, "validation"),
                test=TfdsImages(DATASET, "test"),
            ),
        ),
    )
