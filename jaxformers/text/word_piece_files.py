"""The files of a WordPiece tokenizer: Google's `vocab.txt` and Hugging Face's settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.text.json_files import read_lines, read_optional_json

VOCABULARY_FILE = "vocab.txt"
SETTINGS_FILE = "tokenizer_config.json"
MODEL_FILE = "tokenizer.json"
CONFIG_FILE = "config.json"
# Any of these makes a folder one of Hugging Face's, whose longest word is another.
HUGGINGFACE_FILES = (SETTINGS_FILE, MODEL_FILE, CONFIG_FILE)
LONGEST_WORD, HUGGINGFACE_LONGEST_WORD = 200, 100

# Our option: its name in tokenizer_config.json, its type.
OPTIONS: dict[str, tuple[str, type]] = {
    "lowercase": ("do_lower_case", bool),
    "strip_accents": ("strip_accents", bool),
    "split_chinese": ("tokenize_chinese_chars", bool),
    "longest_word": ("max_input_chars_per_word", int),
}
# Hugging Face's classes that split text as BERT does; the others with a vocab.txt do not.
BERT_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "SqueezeBert")


def read(folder: epath.Path) -> tuple[list[str], dict[str, Any]]:
    """The pieces in `vocab.txt`, the piece with id i at index i, and the options of `WordPiece`.

    Raises:
        UserError: a file is missing, damaged, or not of a BERT tokenizer.
    """
    file = folder / VOCABULARY_FILE
    if not file.exists():
        raise UserError(f"no WordPiece vocabulary in {folder}: it has no {VOCABULARY_FILE}")
    _check_class(folder)
    vocabulary = read_lines(file)
    return vocabulary, _options(folder, vocabulary)


def write(folder: epath.Path, vocabulary: Sequence[str], options: dict[str, Any]) -> None:
    """Write `vocab.txt` and `tokenizer_config.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"tokenizer_class": "BertTokenizer"}
    settings |= {OPTIONS[name][0]: value for name, value in options.items()}
    content = "".join(f"{token}\n" for token in vocabulary)
    (folder / VOCABULARY_FILE).write_bytes(content.encode())
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def tokenizer_class(folder: epath.Path) -> str:
    """The name of Hugging Face's class for the tokenizer, without "Fast"; empty: none is stated."""
    for name in (SETTINGS_FILE, CONFIG_FILE):
        stated = read_optional_json(folder / name).get("tokenizer_class")
        if isinstance(stated, str):
            return stated.removesuffix("Fast")
    return ""


def _check_class(folder: epath.Path) -> None:
    name = tokenizer_class(folder)
    if name and name.removesuffix("Tokenizer") not in BERT_CLASSES:
        raise UserError(
            f"{folder} has a {name} with a {VOCABULARY_FILE}, which does not split text as BERT's "
            f"does: save it with a {MODEL_FILE} (transformers' fast tokenizers write one)"
        )


def _options(folder: epath.Path, vocabulary: list[str]) -> dict[str, Any]:
    """What tokenizer_config.json states, else the defaults."""
    settings = read_optional_json(folder / SETTINGS_FILE)
    huggingface = any((folder / name).exists() for name in HUGGINGFACE_FILES)
    options: dict[str, Any] = {
        "lowercase": not any(map(_has_capitals, vocabulary)),
        "longest_word": HUGGINGFACE_LONGEST_WORD if huggingface else LONGEST_WORD,
    }
    for name, (key, kind) in OPTIONS.items():
        value = settings.get(key)
        if value is None:
            continue
        if type(value) is not kind or (kind is int and value < 1):
            file = folder / SETTINGS_FILE
            raise UserError(f"{file}: {value!r} cannot be the {key} of a tokenizer")
        options[name] = value
    return options


def _has_capitals(token: str) -> bool:
    return token != token.lower() and not (token.startswith("[") and token.endswith("]"))
