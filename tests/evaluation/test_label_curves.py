import math

import numpy as np
import pytest

from jaxformers.errors import DataError
from jaxformers.evaluation.label_curves import deviation, gain, label_curve_figure
from jaxformers.evaluation.probes.bag_of_words import bag_of_words_predictions


def test_a_gain_is_measured_seed_by_seed():
    difference = gain([70.0, 73.0, 76.0], [60.0, 61.0, 68.0])
    assert difference.mean == pytest.approx(10.0)  # of 10, 12 and 8, whose deviation is 2
    assert difference.error == pytest.approx(2 / math.sqrt(3))
    assert deviation([1.0, 3.0]) == pytest.approx(math.sqrt(2))
    assert math.isnan(gain([1.0], [0.0]).error) and math.isnan(deviation([1.0]))


def test_the_figure_has_a_line_with_error_bars_for_each_system():
    curves = {
        "pre-trained": {500: [70.0, 72.0], 200: [60.0, 64.0]},
        "from scratch": {200: [50.0, 54.0], 500: [60.0, 60.0]},
    }
    (axes,) = label_curve_figure(curves, "test accuracy (%)").axes
    (line, caps, _), _ = axes.containers
    assert line.get_xydata().tolist() == [[200, 62], [500, 71]]
    spread = math.sqrt(8)
    assert caps[0].get_ydata() == pytest.approx([62 - spread, 71 - math.sqrt(2)])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["200", "500"]


def test_a_bag_of_words_tells_classes_by_their_words():
    train = ["red apple", "green apple tree", "fast car", "slow car road"]
    labels = np.array([0, 0, 2, 2], np.int32)
    scores = bag_of_words_predictions(train, labels, ["an apple", "the car", "APPLE!"], 3)
    assert scores.argmax(axis=1).tolist() == [0, 2, 0] and (scores[:, 1] == 0).all()
    assert scores.sum(axis=1) == pytest.approx([1, 1, 1])


def test_a_bag_of_words_needs_two_classes_and_words():
    with pytest.raises(DataError, match=r"two classes, and here is \[1\]"):
        bag_of_words_predictions(["a word", "words"], np.ones(2, np.int32), ["word"], 2)
    with pytest.raises(DataError, match="no bag of words of 2 training texts"):
        bag_of_words_predictions(["?", "!"], np.array([0, 1], np.int32), ["word"], 2)
