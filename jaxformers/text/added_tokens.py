"""Tokens that were added to a published tokenizer's vocabulary, and its special tokens by role.

An added token is looked for in the text before the text is cut into words. Hugging Face states
them in `tokenizer.json`, `tokenizer_config.json`, `added_tokens.json` and
`special_tokens_map.json`, which are merged here as in transformers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from etils import epath

from jaxformers.errors import UserError
from jaxformers.text.json_files import read_optional_json
from jaxformers.text.word_piece_files import MODEL_FILE, SETTINGS_FILE

ROLES_FILE, TOKENS_FILE = "special_tokens_map.json", "added_tokens.json"
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
LARGEST_ID = 2**24  # a larger one would make a vocabulary that fills the memory
EXTRA = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in the text itself; the fields are those of `tokenizer.json`."""

    content: str
    single_word: bool = False
    """Match it only where no letter or digit is adjacent."""
    lstrip: bool = False
    """Take in the white space before it."""
    rstrip: bool = False
    """Take in the white space behind it."""
    normalized: bool | None = None
    """Match it in the normalized text; None: unless it is special."""
    special: bool = False
    id: int | None = None
    """None: no file states it."""

    def entry(self, index: int) -> dict[str, Any]:
        """The token as `tokenizer.json` writes it."""
        normalized = not self.special if self.normalized is None else self.normalized
        return asdict(self) | {"normalized": normalized, "id": index}


def read(folder: epath.Path, content: dict[str, Any]) -> dict[str, AddedToken]:
    """The added tokens with an id, by their text.

    Args:
        folder: with the JSON files.
        content: of `tokenizer.json`; empty: there is none.

    Raises:
        UserError: an entry is malformed.
    """
    settings = read_optional_json(folder / SETTINGS_FILE)
    entries = content.get("added_tokens") or []
    if not isinstance(entries, list):
        raise UserError(f"{folder / MODEL_FILE}: added_tokens must be a list of tokens")
    tokens = [_token(entry, folder / MODEL_FILE) for entry in entries]
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        tokens += [
            _token({**entry, "id": _number(index)}, folder / SETTINGS_FILE)
            for index, entry in decoder.items()
            if isinstance(entry, dict)
        ]
    else:
        special = _names_of_special_tokens(folder)
        ids = read_optional_json(folder / TOKENS_FILE)
        tokens = [
            _token(dict(content=name, id=index, special=name in special), folder / TOKENS_FILE)
            for name, index in ids.items()
        ] + tokens
    for token in tokens:
        if token.id is None:
            raise UserError(f"{folder}: the added token {token.content!r:.80} has no id")
    return {token.content: token for token in tokens}


def read_roles(folder: epath.Path) -> dict[str, AddedToken]:
    """The special tokens that the files state for a role ("cls_token" for "cls")."""
    roles: dict[str, AddedToken] = {}
    for file, stated in _special_files(folder):
        for role in ROLES:
            if (value := stated.get(f"{role}_token")) is not None:
                roles[role] = _special(value, file)
    return roles


def extra_special_tokens(folder: epath.Path) -> list[AddedToken]:
    """Further special tokens, without a role, that the files name."""
    files = _special_files(folder)
    return [
        token for file, stated in files for key in EXTRA for token in _listed(stated, key, file)
    ]


def _special_files(folder: epath.Path) -> list[tuple[epath.Path, dict[str, Any]]]:
    """The files that name special tokens, later ones before earlier ones.

    The older `special_tokens_map.json` counts where no `added_tokens_decoder` is stated.
    """
    settings = read_optional_json(folder / SETTINGS_FILE)
    files = [(folder / SETTINGS_FILE, settings)]
    if "added_tokens_decoder" not in settings:
        files.append((folder / ROLES_FILE, read_optional_json(folder / ROLES_FILE)))
    return files


def _names_of_special_tokens(folder: epath.Path) -> set[str]:
    """The tokens of `added_tokens.json` that are special.

    transformers 5 does not look for them in `additional_special_tokens` of the older file.
    """
    tokens = list(read_roles(folder).values())
    for file, stated in _special_files(folder):
        keys = EXTRA if file.name == SETTINGS_FILE else EXTRA[1:]
        tokens += [token for key in keys for token in _listed(stated, key, file)]
    return {token.content for token in tokens}


def _listed(stated: dict[str, Any], key: str, file: epath.Path) -> list[AddedToken]:
    values = stated.get(key) or []
    values = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(values, list):
        raise UserError(f"{file}: {key} must be a list of tokens")
    return [_special(value, file) for value in values]


def with_ids(
    tokens: dict[str, AddedToken], special: Iterable[AddedToken], vocabulary: dict[str, int]
) -> list[dict[str, Any]]:
    """Entries of `tokenizer.json`, by id, for `tokens` and for `special` ones not among them.

    A special token without an id has that of the vocabulary, or else follows behind all ids.
    """
    ids = {name: token.id for name, token in tokens.items()}
    entries = [token.entry(token.id) for token in tokens.values()]
    end = max([len(vocabulary), *(index + 1 for index in ids.values())])
    for token in special:
        if token.content in ids:
            continue
        index = vocabulary.get(token.content, end)
        end += index == end
        ids[token.content] = index
        entries.append(token.entry(index))
    return sorted(entries, key=lambda entry: entry["id"])


def _special(value: Any, file: epath.Path) -> AddedToken:
    """A special token that is stated as its text or with its flags."""
    entry = value if isinstance(value, dict) else {"content": value}
    return _token({**entry, "special": True}, file)


def _token(entry: Any, file: epath.Path) -> AddedToken:
    """The token of an entry; unknown fields (`__type`) do not count."""
    names = {field.name for field in fields(AddedToken)}
    entry = {n: v for n, v in entry.items() if n in names} if isinstance(entry, dict) else {}
    content, index = entry.get("content"), entry.get("id")
    flags = [value for name, value in entry.items() if name not in ("content", "id")]
    if not isinstance(content, str) or not content:
        raise UserError(f"{file}: an added token has no content")
    if not all(isinstance(flag, bool) for flag in flags):
        raise UserError(f"{file}: the flags of the token {content!r:.80} are not true or false")
    if index is not None and (type(index) is not int or not 0 <= index <= LARGEST_ID):
        raise UserError(f"{file}: {index!r:.80} cannot be the id of the token {content!r:.80}")
    return AddedToken(**entry)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else text
