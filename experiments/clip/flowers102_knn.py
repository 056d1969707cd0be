"""Flowers-102 by nearest neighbours among CLIP's frozen features.

The paper has no such result. K in 1, 3, 5, 7, 11 and 21, cosine and Euclidean distance, uniform
votes and votes by inverse distance: the report lists all on the 6,149 test images; the metrics are
those of the setting that is best on the 1,020 validation images. Voters are the training and the
validation images.

    jaxformers prepare oxford_flowers102 --data-dir DIR
    TFDS_DATA_DIR=DIR jaxformers train experiments/clip/flowers102_knn.py

Weights and preprocessing are those of `flowers102_zero_shot`, fetched from Hugging Face's hub;
--task.weights takes a folder or a file, and another size wants its --task.model. Minutes on a CPU.
The features are kept on disk, so a second run takes seconds.
"""

from dataclasses import replace

from flowers102_zero_shot import DATASET
from flowers102_zero_shot import experiment as zero_shot

from jaxformers.data.images import TfdsImages
from jaxformers.tasks import NeighbourEvaluator
from jaxformers.training import Experiment


def experiment() -> Experiment:
    """Evaluation of the released weights, without training."""
    return replace(
        zero_shot(),
        name="flowers102_knn",
        evaluators=(
            NeighbourEvaluator(
                train=TfdsImages(DATASET, "train"),
                dev=TfdsImages(DATASET, "validation"),
                test=TfdsImages(DATASET, "test"),
            ),
        ),
    )
