"""A classifier that knows nothing of the order of words: what a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from jaxformers.errors import DataError

INVERSE_PENALTY = 10.0  # scikit-learn's C: rows of TF-IDF have unit length, so 1 is too strong


def bag_of_words_predictions(
    train: Sequence[str], labels: Int[np.ndarray, "N"], test: Sequence[str], classes: int
) -> Float[np.ndarray, "M K"]:
    """Probabilities of each class by logistic regression over TF-IDF of lower-case words.

    Args:
        train: texts to fit.
        labels: their classes, 0 to `classes - 1`; a class without a text is never predicted.
        test: texts to classify.
        classes: number of classes, K.

    Raises:
        DataError: the training texts are of one class, or hold no word.
    """
    if len(present := np.unique(labels)) < 2:
        raise DataError(f"a classifier needs texts of two classes, and here is {present.tolist()}")
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    )
    try:
        model.fit(list(train), labels)
    except ValueError as error:
        raise DataError(f"no bag of words of {len(train)} training texts: {error}") from None
    probabilities = np.zeros((len(test), classes), np.float32)
    probabilities[:, present] = model.predict_proba(list(test))
    return probabilities
