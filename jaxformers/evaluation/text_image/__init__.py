"""Metrics of tasks on images and text: boxes, captions, answers, maps, key points.

Imports `errors`.
"""

from jaxformers.evaluation.text_image.answers import normalised_answer, token_f1, vqa_accuracy
from jaxformers.evaluation.text_image.boxes import box_f1, box_iou, localisation_score
from jaxformers.evaluation.text_image.cider import cider_d
from jaxformers.evaluation.text_image.coco_ap import coco_ap
from jaxformers.evaluation.text_image.key_points import key_point_similarity
from jaxformers.evaluation.text_image.maps import angle_error, mean_iou, root_mean_square
from jaxformers.evaluation.text_image.rouge import rouge_l

__all__ = [
    "angle_error",
    "box_f1",
    "box_iou",
    "cider_d",
    "coco_ap",
    "key_point_similarity",
    "localisation_score",
    "mean_iou",
    "normalised_answer",
    "root_mean_square",
    "rouge_l",
    "token_f1",
    "vqa_accuracy",
]
