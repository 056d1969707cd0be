"""The special tokens around texts that the `post_processor` of a `tokenizer.json` states."""

from __future__ import annotations

from typing import Any

from jaxformers.errors import UserError
from jaxformers.text.base import InputTemplate

NOTHING = InputTemplate(((), ()), ((), (), ()), 0)


def read_template(post_processor: Any, ids: dict[str, int]) -> InputTemplate:
    """The template that a post-processor states; without one, no tokens are added.

    Args:
        post_processor: the object in `tokenizer.json`, or None.
        ids: of all tokens.

    Raises:
        UserError: a type or an arrangement of tokens that is not supported.
    """
    try:
        return _template(post_processor, ids)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError):
        raise UserError("the post_processor of tokenizer.json is malformed") from None


def _template(processor: Any, ids: dict[str, int]) -> InputTemplate:
    kind = processor["type"] if processor is not None else "ByteLevel"
    if kind == "ByteLevel":  # it moves offsets only
        return NOTHING
    if kind == "BertProcessing":
        cls, sep = ((ids[processor[name][0]],) for name in ("cls", "sep"))
        return InputTemplate((cls, sep), (cls, sep, sep), 1)
    if kind == "RobertaProcessing":
        cls, sep = ((ids[processor[name][0]],) for name in ("cls", "sep"))
        return InputTemplate((cls, sep), (cls, sep * 2, sep), 0)
    if kind == "TemplateProcessing":
        return _from_sequences(processor)
    if kind == "Sequence":
        templates = [_template(inner, ids) for inner in processor["processors"]]
        adding = [template for template in templates if template != NOTHING]
        if len(adding) < 2:
            return adding[0] if adding else NOTHING
    raise UserError(f"its post_processor ({kind}) is not supported")


def _from_sequences(processor: dict[str, Any]) -> InputTemplate:
    """`[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1` and the like, with `$A` before `$B`."""
    special = processor["special_tokens"]
    single, single_types, _ = _split(processor["single"], special)
    pair, pair_types, order = _split(processor["pair"], special)
    first_types, second_types = pair_types[:-1], pair_types[-1]
    # Segment 0 up to the second text, one segment from there on.
    regular = (
        len(single) == 2
        and order == ["A", "B"]
        and not any(map(any, [*single_types, *first_types]))
        and len(set(second_types)) == 1
        and second_types[0] in (0, 1)
    )
    if not regular:
        raise UserError("its post_processor arranges texts or segments as no supported model does")
    return InputTemplate(single, pair, second_types[0])


def _split(
    sequence: list[dict[str, Any]], special: dict[str, Any]
) -> tuple[tuple[tuple[int, ...], ...], list[list[int]], list[str]]:
    """The special ids before, between and behind the texts, all segments, and the texts' names.

    A text's own segment counts with what stands behind it.
    """
    ids: list[list[int]] = [[]]
    types: list[list[int]] = [[]]
    names: list[str] = []
    for entry in sequence:
        if "Sequence" in entry:
            names.append(entry["Sequence"]["id"])
            ids.append([])
            types.append([entry["Sequence"]["type_id"]])
        else:
            token = entry["SpecialToken"]
            tokens = special[token["id"]]["ids"]
            ids[-1] += tokens
            types[-1] += [token["type_id"]] * len(tokens)
    return tuple(map(tuple, ids)), types, names
