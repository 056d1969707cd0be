"""JSON whose texts can be written again."""

from __future__ import annotations

import json
from typing import Any

from jaxformers.text.base import HALF_PAIR, without_half_pairs


def parse_json(content: str | bytes) -> Any:
    """Parses `content`, with U+FFFD for each half of a surrogate pair.

    JSON can escape such a half (text that was cut within an emoji holds one), but no UTF-8 can, so
    a report or predictions could not be written. Offsets into texts stay as they were.

    Raises:
        ValueError: no JSON.
        RecursionError: nested too deeply.
    """
    value = json.loads(content)
    text = json.dumps(value, ensure_ascii=False)
    return json.loads(without_half_pairs(text)) if HALF_PAIR.search(text) else value
