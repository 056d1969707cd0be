"""Schemes of tags: what each allows, and its form in IOB2."""

import random

import pytest

from jaxformers.data.text.tags.schemes import marks_entities, tag_names, to_iob2
from jaxformers.errors import DataError
from jaxformers.evaluation import entity_spans

TYPES = ("PER", "LOC")


def written(spans, length, scheme):
    """Tags of entities (type, start, end) in a scheme, by its definition."""
    tags, previous = ["O"] * length, ("", 0, 0)
    for entity_type, start, end in spans:
        single, last = {"IOBES": "SE", "BILOU": "UL"}.get(scheme, "BI")
        letters = ["I"] * (end - start)
        letters[-1], letters[0] = last, "B"
        if end - start == 1:
            letters = [single]
        if scheme == "IOB1" and (entity_type, start) != (previous[0], previous[2]):
            letters[0] = "I"
        tags[start:end] = [f"{letter}-{entity_type}" for letter in letters]
        previous = entity_type, start, end
    return tags


def random_spans(seed):
    rng, spans, start = random.Random(seed), [], 0
    while start < 12:
        end = start + rng.randint(1, 3)
        if rng.random() < 0.6:
            spans.append((rng.choice(TYPES), start, end))
        start = end
    return spans


@pytest.mark.parametrize("scheme", ["BILOU", "IOB1", "IOB2", "IOBES"])
def test_every_scheme_becomes_iob2_with_the_same_entities(scheme):
    for seed in range(50):
        spans = random_spans(seed)
        tags = to_iob2(written(spans, 16, scheme), scheme, "abcdefghijklmnop", "line 1")
        assert tags == written(spans, 16, "IOB2")
        assert entity_spans(tags) == spans


@pytest.mark.parametrize(
    ("scheme", "tags", "reason", "valid"),
    [
        ("BILOU", "O S-A", "'S-A' of word 2, 'b', is none of BILOU: O, B-TYPE", "valid IOBES"),
        ("IOB1", "O B-A I-A", "'B-A' of word 2, 'b', follows no entity .* writes I-A", "IOB2"),
        ("IOB2", "O I-A", "'I-A' of word 2, 'b', follows no entity .* writes B-A", "valid IOB1"),
        ("IOB2", "B-A I-B", "'I-B' of word 2, 'b', follows no entity .* writes B-B", ""),
        ("IOB2", "B-A E-A", "'E-A' of word 2, 'b', is none of IOB2: O, B-TYPE, I-T", "IOBES"),
        ("IOB2", "O NN", "'NN' of word 2, 'b', is none of IOB2", ""),
        ("IOB2", "O B-", "'B-' of word 2, 'b', is none of IOB2", ""),
        ("IOBES", "B-A I-A", "'I-A' of word 2, 'b', ends an entity, .* tags E-A", "valid IOB2"),
        ("IOBES", "B-A O", "'O' of word 2, 'b', follows an entity .* IOBES tags E-A", "IOB2"),
        ("IOBES", "O E-A", "'E-A' of word 2, 'b', follows no entity of its type", ""),
    ],
)
def test_a_tag_that_breaks_its_scheme_is_refused_by_name(scheme, tags, reason, valid):
    with pytest.raises(DataError, match=f"^x, line 9: the tag {reason}.*{valid}") as error:
        to_iob2(tags.split(), scheme, "abc", "x, line 9")
    assert "set the data's scheme" in str(error.value)


def test_classes_are_outside_then_both_tags_of_every_type():
    assert tag_names(["B-b", "O", "I-a"], "IOB1") == ("O", "B-a", "I-a", "B-b", "I-b")
    assert tag_names(["NN", "VB", "NN"], "none") == ("NN", "VB")
    assert to_iob2(["NN", "I-?"], "none", "ab", "") == ["NN", "I-?"]


def test_which_classes_mark_entities():
    assert marks_entities(["O", "B-x", "I-x", "S-x", "U-y"]) and marks_entities(["O"])
    for names in (["NN", "VB"], ["O", "NN"], ["O", "B-"], ["B-x", "I-x"], ["O", "X-y"], []):
        assert not marks_entities(names)
