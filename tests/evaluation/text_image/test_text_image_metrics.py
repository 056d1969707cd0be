"""Metrics of tasks on images and text, against published implementations and hand-made cases."""

import numpy as np
import pytest

from jaxformers.errors import UserError
from jaxformers.evaluation.text_image import (
    angle_error,
    box_f1,
    box_iou,
    cider_d,
    coco_ap,
    key_point_similarity,
    localisation_score,
    mean_iou,
    normalised_answer,
    root_mean_square,
    rouge_l,
    token_f1,
    vqa_accuracy,
)


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("A Dog.", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("red/blue", "red blue"),
        ("x;/y/z", "x y z"),
        ("x; y/z", "x y z"),
        ("x /y", "x y"),
        ("yes, it is", "yes it is"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),  # the published table has forms that lack one apostrophe
        ("couldnt've", "couldn't've"),
        ("3.5", "3.5"),
    ],
)
def test_answers_are_normalised_as_vqa_does(answer, normalised):
    assert normalised_answer(answer) == normalised


def test_vqa_accuracy_leaves_one_reference_out():
    assert vqa_accuracy("The dog", ["dog"] * 10) == 1
    assert vqa_accuracy("dog", ["dog"] * 2 + ["cat"] * 8) == pytest.approx(0.6)
    assert vqa_accuracy("dog", ["dog"] * 3 + ["cat"] * 7) == pytest.approx(0.9)
    assert vqa_accuracy("dog", ["cat"] * 10) == 0
    assert vqa_accuracy("2", ["two"]) == 1


def test_cider_is_that_of_pycocoevalcap():
    captions = [
        "a cat and two dogs on a green ground",
        "there is a red bus",
        "a bus",
        "two birds on a wire in the sky",
    ]
    references = [
        ["a cat and two dogs on a green ground", "two dogs with a cat"],
        ["a red bus on the road", "there is a bus that is red"],
        ["a blue bus", "the bus"],
        ["birds sit on a wire", "two birds on a wire"],
    ]
    assert cider_d(captions, references) == pytest.approx(371.13494648, abs=1e-6)


def test_boxes_are_matched_one_to_one():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], float)
    np.testing.assert_allclose(
        box_iou(boxes, boxes + np.array([5, 0, 5, 0])), [[1 / 3, 0], [0, 1 / 3]]
    )
    assert box_f1(boxes, boxes) == 1
    assert box_f1(boxes, boxes, ["a", "b"], ["a", "c"]) == 0.5
    assert box_f1(boxes[:1], boxes) == pytest.approx(2 / 3)
    assert box_f1(boxes[:0], boxes[:0]) == 1
    assert box_f1(boxes[:0], boxes) == 0
    assert localisation_score(boxes[:1], boxes) == 0.5
    assert localisation_score(boxes, boxes) == 1


def test_coco_ap_is_that_of_pycocotools_or_says_what_to_install():
    boxes, labels = [[[0, 0, 10, 10], [20, 0, 30, 10]], [[0, 0, 4, 4]]], [["a", "b"], ["z"]]
    references, reference_labels = [[[0, 0, 10, 10], [20, 0, 30, 12]], []], [["a", "b"], []]
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install 'landmark-transformers\\[coco\\]'"):
            coco_ap(boxes, labels, references, reference_labels)
    else:
        metrics = coco_ap(boxes, labels, references, reference_labels)
        # IoU of b is 10 / 12: right up to the threshold 0.8, 7 of 10.
        assert metrics == pytest.approx({"ap": 85.0, "ap50": 100.0}, abs=0.5)


def test_maps_and_key_points():
    assert root_mean_square(np.array([0.0, 3.0]), np.array([0.0, 0.0])) == pytest.approx(4.5**0.5)
    ones = np.ones((2, 2), bool)
    half = np.array([[True, False], [True, False]])
    assert mean_iou([half, ~ones], [ones, ~ones]) == 0.75
    up, right = np.zeros((1, 1, 3)), np.zeros((1, 1, 3))
    up[..., 2], right[..., 0] = 2, 1
    assert angle_error(up, right) == pytest.approx(90)
    assert angle_error(up, up * 3) == pytest.approx(0)
    points, visibility = np.zeros((17, 2)), np.ones(17, int)
    assert key_point_similarity(points, points, visibility, 100.0) == 1
    nose = np.eye(17, dtype=int)[0]
    shifted = key_point_similarity(points + np.array([1.0, 0.0]), points, nose, 100.0)
    assert shifted == pytest.approx(np.exp(-1 / (2 * 100 * 0.052**2)))


def test_summaries_and_short_answers():
    assert rouge_l("the cat sat", "the cat sat") == 1
    assert rouge_l("the cat", "a cat was here") == pytest.approx(2 / 6)
    assert rouge_l("", "cat") == 0
    assert token_f1("the red bus", "bus") == pytest.approx(2 / 3)
    assert token_f1("", "") == 1
