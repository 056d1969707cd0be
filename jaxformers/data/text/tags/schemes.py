"""Tags of words that mark entities: IOB1, IOB2, IOBES and BILOU, and their form in IOB2.

A tag is "O" (outside of all entities), or a prefix, a hyphen and the entity's type: "B-PER".

    scheme   first word   inner words   last word   single word   adjacent, of the same type
    IOB2     B-           I-            I-          B-            B-
    IOB1     I-           I-            I-          I-            B- where the second one begins
    IOBES    B-           I-            E-          S-            B- or S-
    BILOU    B-           I-            L-          U-            B- or U-

IOB1 is that of the files of CoNLL-2003 (Ramshaw and Marcus 1995); most later sets have IOB2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from jaxformers.errors import DataError

Scheme = Literal["IOB2", "IOB1", "IOBES", "BILOU", "none"]
"""The scheme of a set's tags; "none": classes of single words, such as parts of speech."""

OUTSIDE = "O"
PREFIXES = {"IOB2": "BI", "IOB1": "BI", "IOBES": "BIES", "BILOU": "BILU"}
LAST = {"IOBES": "E", "BILOU": "L"}
SINGLE = {"IOBES": "S", "BILOU": "U"}
BEGINS, ENDS = frozenset("BSU"), frozenset("ELSU")
"""Prefixes that begin an entity whatever stands before them, and those that end one."""


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag; both are empty for "O"."""
    if tag == OUTSIDE:
        return "", ""
    prefix, _, entity_type = tag.partition("-")
    return prefix, entity_type


def marks_entities(names: Iterable[str]) -> bool:
    """Whether these classes are tags of a scheme: "O", and the others with a known prefix."""
    tags = set(names)
    prefixes = {split_tag(tag) for tag in tags - {OUTSIDE}}
    letters = set("".join(PREFIXES.values()))
    return OUTSIDE in tags and all(p in letters and entity_type for p, entity_type in prefixes)


def tag_names(tags: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """The classes of a model that learns `tags`: "O", then "B-" and "I-" of every type, sorted.

    Args:
        tags: as `to_iob2` gives them.
        scheme: of the set; with "none" the classes are the tags, sorted.
    """
    if scheme == "none":
        return tuple(sorted(set(tags)))
    types = sorted({split_tag(tag)[1] for tag in tags} - {""})
    return (OUTSIDE, *(f"{prefix}-{entity_type}" for entity_type in types for prefix in "BI"))


def to_iob2(tags: Sequence[str], scheme: Scheme, words: Sequence[str], where: str) -> list[str]:
    """The tags of a sentence in IOB2; of the scheme "none" as they are.

    Args:
        words: of the sentence, which messages quote.
        where: what messages call the sentence.

    Raises:
        DataError: a tag that the scheme does not allow where it stands, with the schemes that do.
    """
    if scheme == "none":
        return list(tags)
    if (fault := _first_fault(tags, scheme)) is not None:
        index, reason = fault
        valid = [name for name in get_args(Scheme)[:-1] if _first_fault(tags, name) is None]
        hint = f"; its tags are valid {' and '.join(valid)}" * bool(valid)
        raise DataError(
            f"{where}: the tag {tags[index]!r:.80} of word {index + 1}, {words[index]!r:.80}, "
            f"{reason}{hint}: set the data's scheme, or mend the tags"
        )
    converted, previous_prefix, previous_type = [], "", ""
    for tag in tags:
        prefix, entity_type = split_tag(tag)
        begins = prefix in BEGINS or entity_type != previous_type or previous_prefix in ENDS
        converted.append(f"{'B' if begins else 'I'}-{entity_type}" if prefix else OUTSIDE)
        previous_prefix, previous_type = prefix, entity_type
    return converted


def _first_fault(tags: Sequence[str], scheme: str) -> tuple[int, str] | None:
    """Index of the first tag that breaks the scheme, and why; None where none does."""
    inside = ""  # type of the entity that the next tag may go on with
    last, single = LAST.get(scheme), SINGLE.get(scheme)
    for index, tag in enumerate(tags):
        prefix, entity_type = split_tag(tag)
        if tag != OUTSIDE and not (entity_type and prefix in tuple(PREFIXES[scheme])):
            letters = ", ".join(f"{letter}-TYPE" for letter in PREFIXES[scheme])
            return index, f"is none of {scheme}: O, {letters}"
        continues = prefix in ("I", last)
        if scheme == "IOB1":
            if prefix == "B" and entity_type != inside:
                return index, f"follows no entity of its type, so IOB1 writes I-{entity_type}"
        elif continues and entity_type != inside:
            return index, f"follows no entity of its type, so {scheme} writes B-{entity_type}"
        elif last and inside and not continues:
            return index, f"follows an entity whose last word {scheme} tags {last}-{inside}"
        inside = "" if prefix in (last, single) else entity_type
    if last and inside:
        return len(tags) - 1, f"ends an entity, whose last word {scheme} tags {last}-{inside}"
    return None
