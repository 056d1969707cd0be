"""The files beside a text model's weights that say how it is used, for an export to keep them."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.pretrained.bert.sentence_pooling import sentence_files
from jaxformers.pretrained.formats.safetensors_folder import (
    LARGEST_TOKENIZER_FILE,
    OLD_PLACE,
    TOKENIZER_FILES,
    require_regular,
)


def use_files(folder: Any) -> dict[str, bytes]:
    """Contents of a folder's tokenizer files and sentence-embedding files, by relative path.

    Raises:
        WeightsError: the folder holds none, one is too large or no file, or one states an
            embedding that is not supported.
    """
    folder = epath.Path(folder).expanduser()
    if not folder.is_dir():
        raise WeightsError(f"the tokenizer's folder {folder} is no folder")
    encoder = next((f for f in (folder, folder / OLD_PLACE) if _tokenizer_paths(f)), folder)
    files: dict[str, bytes] = {}
    for path in _tokenizer_paths(encoder):
        require_regular(path)
        if path.stat().length > LARGEST_TOKENIZER_FILE:
            raise WeightsError(f"{path} is larger than a tokenizer's file can be")
        files[path.name] = path.read_bytes()
    return files | sentence_files(folder)


def _tokenizer_paths(folder: epath.Path) -> list[epath.Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).exists()]
