"""The files of a WordPiece tokenizer: Google's `vocab.txt`, Hugging Face's JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxformers.errors import UserError

VOCABULARY_FILE = "vocab.txt"
SETTINGS_FILE = "tokenizer_config.json"
MODEL_FILE = "tokenizer.json"
# Any of these makes a folder one of Hugging Face's, whose longest word is another.
HUGGINGFACE_FILES = (SETTINGS_FILE, MODEL_FILE, "config.json")
LONGEST_WORD, HUGGINGFACE_LONGEST_WORD = 200, 100
LARGEST_FILE = 256 * 2**20  # bytes; published ones stay below ten million

# Our option: its name in tokenizer_config.json, its place in tokenizer.json, its type.
OPTIONS: dict[str, tuple[str, tuple[str, str], type]] = {
    "lowercase": ("do_lower_case", ("normalizer", "lowercase"), bool),
    "strip_accents": ("strip_accents", ("normalizer", "strip_accents"), bool),
    "split_chinese": ("tokenize_chinese_chars", ("normalizer", "handle_chinese_chars"), bool),
    "longest_word": ("max_input_chars_per_word", ("model", "max_input_chars_per_word"), int),
}


def holds_word_piece(folder: epath.Path) -> bool:
    """Whether `folder` has a `vocab.txt`, or a `tokenizer.json` with a WordPiece model."""
    if (folder / VOCABULARY_FILE).exists():
        return True
    return (folder / MODEL_FILE).exists() and _is_word_piece(_json(folder / MODEL_FILE))


def read(folder: epath.Path) -> tuple[list[str], dict[str, Any]]:
    """The pieces in `folder` and the options of `WordPiece`.

    Raises:
        UserError: a file is missing, damaged, or not of a BERT tokenizer.
    """
    model = _model(folder / MODEL_FILE)
    if (folder / VOCABULARY_FILE).exists():
        vocabulary = _lines(folder / VOCABULARY_FILE)
    elif model:
        vocabulary = _pieces(model, folder / MODEL_FILE)
    else:
        raise UserError(f"no WordPiece vocabulary in {folder}: it has no {VOCABULARY_FILE}")
    return vocabulary, _options(folder, vocabulary, model)


def write(folder: epath.Path, vocabulary: Sequence[str], options: dict[str, Any]) -> None:
    """Write `vocab.txt` and `tokenizer_config.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"tokenizer_class": "BertTokenizer"}
    settings |= {OPTIONS[name][0]: value for name, value in options.items()}
    content = "".join(f"{piece}\n" for piece in vocabulary)
    (folder / VOCABULARY_FILE).write_bytes(content.encode())
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def _options(folder: epath.Path, vocabulary: list[str], model: dict[str, Any]) -> dict[str, Any]:
    """What the files state, tokenizer_config.json before tokenizer.json, else the defaults."""
    settings = _json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).exists() else {}
    huggingface = any((folder / name).exists() for name in HUGGINGFACE_FILES)
    options: dict[str, Any] = {
        "lowercase": not any(map(_has_capitals, vocabulary)),
        "longest_word": HUGGINGFACE_LONGEST_WORD if huggingface else LONGEST_WORD,
    }
    for name, (key, (section, inner), kind) in OPTIONS.items():
        candidates = (
            (settings.get(key), SETTINGS_FILE),
            (model.get(section, {}).get(inner), MODEL_FILE),
        )
        for value, file in candidates:
            if value is None:
                continue
            if type(value) is not kind or (kind is int and value < 1):
                raise UserError(f"{folder / file}: {value!r} cannot be the {key} of a tokenizer")
            options[name] = value
            break
    return options


def _has_capitals(piece: str) -> bool:
    return piece != piece.lower() and not (piece.startswith("[") and piece.endswith("]"))


def _model(file: epath.Path) -> dict[str, Any]:
    """`tokenizer.json`, or nothing where there is none."""
    if not file.exists():
        return {}
    content = _json(file)
    if not _is_word_piece(content):
        raise UserError(f"{file} does not hold a WordPiece model")
    if content["model"].get("continuing_subword_prefix", "##") != "##":
        raise UserError(f"{file} marks the pieces within a word with another sign than ##")
    normalizer = content.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        raise UserError(f"{file} does not cut text into words as BERT does (no BertNormalizer)")
    return content


def _is_word_piece(content: dict[str, Any]) -> bool:
    model = content.get("model")
    if not isinstance(model, dict):
        return False
    # Old files name no type, but only WordPiece limits the length of words.
    return model.get("type", "WordPiece") == "WordPiece" and "max_input_chars_per_word" in model


def _pieces(content: dict[str, Any], file: epath.Path) -> list[str]:
    """The pieces of `tokenizer.json` in the order of their ids, added tokens included."""
    try:
        ids = dict(content["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in content.get("added_tokens") or []}
        pieces = {index: piece for piece, index in ids.items()}
        return [pieces[index] for index in range(len(ids))]
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{file} must give each piece one of the ids 0, 1, 2, ... without a gap"
        ) from None


def _lines(file: epath.Path) -> list[str]:
    try:
        lines = _content(file).decode().split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text in UTF-8, or it is damaged") from None
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r") for line in lines]


def _json(file: epath.Path) -> dict[str, Any]:
    try:
        content = json.loads(_content(file))
    except (ValueError, RecursionError):
        raise UserError(f"{file} is not valid JSON, or it is damaged") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} must be a JSON object")
    return content


def _content(file: epath.Path) -> bytes:
    if (size := file.stat().length) > LARGEST_FILE:
        raise UserError(f"{file} is too large for a tokenizer ({size:,} bytes)")
    return file.read_bytes()
