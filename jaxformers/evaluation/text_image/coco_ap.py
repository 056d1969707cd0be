"""COCO's average precision, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from jaxformers.errors import UserError, install_extra

Boxes = Sequence[Sequence[float]]


def coco_ap(
    boxes: Sequence[Boxes],
    labels: Sequence[Sequence[str]],
    references: Sequence[Boxes],
    reference_labels: Sequence[Sequence[str]],
    scores: Sequence[Sequence[float]] | None = None,
) -> dict[str, float]:
    """`ap` (IoU 0.5 to 0.95) and `ap50`, from 0 to 100.

    Args:
        boxes, labels: found in each image; x1 y1 x2 y2 in pixels.
        references, reference_labels: the truth.
        scores: confidence of each box; None: the order in an answer, earlier ones first.

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise UserError(
            f"COCO's average precision needs pycocotools: {install_extra('coco')}"
        ) from None
    names = sorted({label for row in reference_labels for label in row})
    categories = {name: number for number, name in enumerate(names, 1)}
    truth = COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(1, len(references) + 1)],
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
        "annotations": [
            _annotation(number, image, box, categories[label])
            for number, (image, box, label) in enumerate(_flat(references, reference_labels), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress there
        truth.createIndex()
        ranks: dict[int, int] = {}
        results = []
        for image, box, label in _flat(boxes, labels):
            rank = ranks[image] = ranks.get(image, -1) + 1
            if label in categories:  # a label that no reference has is in no category's precision
                score = 1 / (1 + rank) if scores is None else scores[image - 1][rank]
                entry = _annotation(len(results) + 1, image, box, categories[label])
                results.append(entry | {"score": score})
        if not results or not truth.dataset["annotations"]:
            return {"ap": 0.0, "ap50": 0.0}
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"ap": 100 * float(evaluation.stats[0]), "ap50": 100 * float(evaluation.stats[1])}


def _flat(boxes: Sequence[Boxes], labels: Sequence[Sequence[str]]):
    for image, (row, names) in enumerate(zip(boxes, labels, strict=True), 1):
        for box, label in zip(row, names, strict=True):
            yield image, box, label


def _annotation(number: int, image: int, box: Sequence[float], category: int) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, box)
    width, height = x2 - x1, y2 - y1
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
