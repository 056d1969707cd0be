"""Scores of a classifier's logits: softmax, sigmoid, or the numbers themselves.

One rule for texts and pictures, that of transformers' pipelines.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


def class_scores(
    logits: Float[np.ndarray, "*batch N"], problem_type: ProblemType | None
) -> Float[np.ndarray, "*batch N"]:
    """Scores of logits: probabilities, or numbers of a regression.

    Args:
        logits: float32.
        problem_type: of the model's configuration. "regression": the scores are the logits.
            "multi_label_classification", or a single class: each class has a sigmoid probability of
            its own. Otherwise: softmax over the classes.
    """
    logits = np.asarray(logits)
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification" or logits.shape[-1] == 1:
        return expit(logits)
    return softmax(logits, axis=-1)
