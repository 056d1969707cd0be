"""The page of the architecture answers a newcomer's questions by paths that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
QUESTIONS = (
    "a learning-rate schedule",
    "an image augmentation",
    "a published format",
    "a metric",
    "an attention back-end",
    "a sharding rule",
    "a new verb",
    "a checkpoint policy",
    "a tokenizer",
    "a chip",
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_page_answers_where_to_add(question):
    (answer,) = re.findall(rf"^\| {question} \| (.*) \|$", PAGE, re.M)
    assert re.findall(r"`([^`]+)`", answer)


def test_every_path_that_the_page_names_exists():
    paths = [text for text in re.findall(r"`([^`\n]+)`", PAGE) if "/" in text]
    assert len(paths) > len(QUESTIONS)
    assert [path for path in paths if not (ROOT / path).exists()] == []
