"""The registry of tokenizers: which class reads the tokenizer's files of a folder.

Model families register the classes of theirs, so that a plug-in's tokenizer is loaded as ours are.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, TypeVar

from etils import epath

from jaxformers.errors import UserError, folder_contents
from jaxformers.text.base import Tokenizer


class TokenizerClass(Protocol):
    """What a tokenizer's class offers, beside the methods of a `Tokenizer`."""

    FILE_NAMES: ClassVar[str]
    """The files that it reads, for the message where a folder holds none."""

    @classmethod
    def recognises(cls, folder: epath.Path) -> bool:
        """Whether the files in `folder` are this class's."""
        ...

    @classmethod
    def load(cls, folder: Any) -> Tokenizer:
        """The tokenizer in `folder`; raises UserError where its files cannot be used."""
        ...


Class = TypeVar("Class", bound=type[TokenizerClass])
_classes: list[type[TokenizerClass]] = []


def register_tokenizer(tokenizer_class: Class) -> Class:
    """Makes a class known to `load_tokenizer`, behind those that are; a class may come again."""
    if tokenizer_class not in _classes:
        _classes.append(tokenizer_class)
    return tokenizer_class


def load_tokenizer(folder: Any) -> Tokenizer:
    """The tokenizer whose files lie in `folder`, recognised by their names.

    `vocab.txt` alone is a `WordPiece`; with a `tokenizer.json`, or with added tokens beside it, it
    is a `HuggingFaceTokenizer`.

    Raises:
        UserError: `folder` holds none; the message names the files that were looked for.
    """
    folder = epath.Path(folder)
    if tokenizer_class := _class_for(folder):
        return tokenizer_class.load(folder)
    names = ", for ".join(tokenizer_class.FILE_NAMES for tokenizer_class in _classes)
    raise UserError(f"no tokenizer in {folder}: looked for {names}; {folder_contents(folder)}")


def holds_tokenizer(folder: Any) -> bool:
    """Whether `folder` has the files of a tokenizer."""
    return _class_for(epath.Path(folder)) is not None


def _class_for(folder: epath.Path) -> type[TokenizerClass] | None:
    return next((entry for entry in _classes if entry.recognises(folder)), None)
