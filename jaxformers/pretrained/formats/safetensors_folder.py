"""A published folder, `config.json` and safetensors: read with suspicion, written whole or not.

Nothing is unpickled. What a file declares is checked before anything is used.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import safetensors
from etils import epath

from jaxformers.errors import WeightsError, folder_contents, printable
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.regular_files import check_regular

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
GOOGLE_CONFIG = "bert_config.json"
OLD_PLACE = "0_Transformer"  # of an encoder's own files in sentence-transformers before 2021
TOKENIZER_SETTINGS = "tokenizer_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth")
TOKENIZER_FILES = (
    "source.spm",
    "target.spm",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "tokenizer.json",
    TOKENIZER_SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "openai_clip.json",
)
LARGEST_TOKENIZER_FILE = 256 << 20  # bytes
# Files by which sentence-transformers knows a folder.
SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
JSON_BYTES = 1 << 20
INDEX_BYTES = 64 << 20
TYPE_NAMES = {
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"},
    **{"bool": "BOOL", "uint8": "U8", "int32": "I32", "int64": "I64"},
}
FLOATS = ("F16", "BF16", "F32", "F64")
CHECKSUMS = "crc32"
"""Key of a file's metadata: JSON of each tensor's CRC-32, in files that this library writes."""


def require_regular(file: epath.Path) -> None:
    """Raises WeightsError unless the path is a regular file's: a pipe or device may never end."""
    check_regular(file, WeightsError)


def read_json(file: epath.Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes.

    Raises:
        WeightsError: no such file, too large, no JSON, or no object.
    """
    require_regular(file)
    try:
        if file.stat().length > limit:
            raise WeightsError(f"{file} is larger than {limit:,} bytes: not a configuration")
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise WeightsError(f"{file} is not valid JSON, or it is damaged") from None
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {_reason(error)}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{file} must hold one JSON object")
    return content


class Tensors:
    """The tensors of a folder's safetensors files, whole or sharded: shapes now, values when asked.

    Raises:
        WeightsError: no safetensors file, a damaged one, or an index that does not match its files.
    """

    def __init__(self, folder: epath.Path):
        self._temporary = tempfile.TemporaryDirectory() if _remote(folder) else None
        self._files: dict[str, TensorFile] = {}
        is_single_file = (folder / WEIGHTS).exists()
        self.place = str(folder / (WEIGHTS if is_single_file else INDEX))
        self._index = {} if is_single_file else self._read_index(folder)
        for name in [WEIGHTS] if is_single_file else sorted(set(self._index.values())):
            self._add(TensorFile(self._local(folder / name), str(folder / name)))
        self._check_index()
        self.shapes: Mapping[str, Shape] = {n: f.shapes[n] for n, f in self._files.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32, from float16, bfloat16, float32 or float64."""
        return self._files[name].read(name)

    def _add(self, file: TensorFile) -> None:
        if twice := sorted(self._files.keys() & file.shapes.keys()):
            raise WeightsError(
                f"{file.place} repeats {printable(twice[0])}, which another file holds too"
            )
        self._files |= dict.fromkeys(file.shapes, file)

    def _read_index(self, folder: epath.Path) -> dict[str, str]:
        if not (folder / INDEX).exists():
            raise WeightsError(_no_weights(folder))
        index = read_json(folder / INDEX, INDEX_BYTES).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise WeightsError(f"{self.place} has no weight_map from tensors to files")
        for file in index.values():
            if not isinstance(file, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", file):
                quoted = printable(repr(file))
                raise WeightsError(
                    f"{self.place} names {quoted}, which is no safetensors file beside it"
                )
            if not (folder / file).exists():
                raise WeightsError(f"{self.place} names {file}, which is missing")
        return index

    def _check_index(self) -> None:
        for name, file in self._index.items():
            if name not in self._files or Path(self._files[name].place).name != file:
                raise WeightsError(
                    f"{self.place} places {printable(name)} in {file}, which does not hold it"
                )

    def _local(self, file: epath.Path) -> Path:
        """The file on this machine's disk, where safetensors can map it."""
        if self._temporary is None:
            return Path(file)
        copy = Path(self._temporary.name) / file.name
        with file.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        return copy


class TensorFile:
    """One safetensors file on this machine; `place` is what the user calls it."""

    def __init__(self, path: Path, place: str):
        self.place, self._path = place, path
        require_regular(epath.Path(path))
        try:
            file = safetensors.safe_open(path, framework="numpy")
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            self._checksums = json.loads((file.metadata() or {}).get(CHECKSUMS, "{}"))
            if not isinstance(self._checksums, dict):
                raise ValueError("metadata")
        except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
            reason = re.sub(r"Error while deserializing header: ", "", _reason(error))
            raise WeightsError(
                f"{place} is truncated, damaged or no safetensors file ({reason}): fetch it again"
            ) from None
        self.shapes: dict[str, Shape] = {n: tuple(s.get_shape()) for n, s in slices.items()}
        self._types = {name: tensor.get_dtype() for name, tensor in slices.items()}

    def read(self, name: str) -> np.ndarray:
        """Reads a tensor as float32."""
        if (kind := self._types[name]) not in FLOATS:
            raise WeightsError(
                f"{self.place}: {printable(name)} is of type {kind}, not one of {FLOATS}"
            )
        # Opened anew, so that the pages of earlier tensors leave the memory.
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                tensor = file.get_tensor(name)
        except (safetensors.SafetensorError, OSError):
            raise WeightsError(f"{self.place} has changed at {printable(name)}") from None
        if name in self._checksums and self._checksums[name] != _checksum(tensor):
            raise WeightsError(
                f"{self.place}: {printable(name)} is damaged, or was changed by a program that "
                "kept the file's metadata: fetch it again, or save it without metadata"
            )
        return tensor.astype(np.float32)


def _remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _no_weights(folder: epath.Path) -> str:
    if pickles := [name for name in PICKLES if (folder / name).exists()]:
        return (
            f"{folder} holds only {pickles[0]}, a pickle, which could run any code when opened: "
            "convert it where you trust it, with transformers' "
            "from_pretrained(...).save_pretrained(..., safe_serialization=True)"
        )
    return (
        f"{folder} holds neither {WEIGHTS} nor {INDEX}, nor Flax's flax_model.msgpack; "
        f"{folder_contents(folder)}"
    )


def write_tensors(folder: epath.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `model.safetensors` with Hugging Face's metadata and checksums, tensor by tensor.

    Equal tensors give equal files.
    """
    # Wider types first, so that every tensor is aligned.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    checksums = json.dumps({name: _checksum(tensor) for name, tensor in tensors.items()})
    header: dict[str, Any] = {"__metadata__": {CHECKSUMS: checksums, "format": "pt"}}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.nbytes
        entry = {"dtype": TYPE_NAMES[tensor.dtype.name], "shape": list(tensor.shape)}
        header[name] = entry | {"data_offsets": [offset, end]}
        offset = end
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for _, tensor in ordered:
            file.write(_bytes(tensor).data)


def _bytes(tensor: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)


def _checksum(tensor: np.ndarray) -> int:
    """The CRC-32 of the tensor's bytes."""
    return zlib.crc32(_bytes(tensor))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """The bytes of an indented JSON file."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def write_folder(
    folder: epath.Path,
    tensors: Mapping[str, np.ndarray],
    files: Mapping[str, Mapping[str, Any]],
    tokenizer: Any = None,
    write_weights: Callable[[epath.Path, Mapping[str, np.ndarray]], None] = write_tensors,
    tokenizer_settings: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Writes tensors, JSON files and a tokenizer's into `folder`; a failure leaves it as it was.

    Args:
        folder: made if it is not there; files in it of other names stay.
        tensors: by name, for one file of weights.
        files: contents of JSON files by name.
        tokenizer: a `text.Tokenizer`, contents of files by relative path, or None. Those of an
            earlier tokenizer are removed.
        write_weights: writes the tensors into a folder.
        tokenizer_settings: fields that are added to the tokenizer's `tokenizer_config.json`.

    Raises:
        WeightsError: it cannot be written (no room, no permission, a file stands there).
    """
    folder = epath.Path(folder).expanduser()
    folder = folder if _remote(folder) else folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"cannot write {folder}: it is a file, not a folder")
    with _one_line(folder), _staging(folder) as stage:
        write_weights(stage, tensors)
        for name, content in files.items():
            (stage / name).write_bytes(json_bytes(content))
        _write_tokenizer(stage, tokenizer)
        settings_path = stage / TOKENIZER_SETTINGS
        if tokenizer_settings and settings_path.exists():
            settings = read_json(settings_path, LARGEST_TOKENIZER_FILE) | tokenizer_settings
            settings_path.write_bytes(json_bytes(settings))
        # Files of an earlier export would change how those written now are read.
        stale = () if tokenizer is None else TOKENIZER_FILES
        stale += SENTENCE_FILES if isinstance(tokenizer, Mapping) else ()
        _publish(stage, folder, stale)


def _publish(stage: epath.Path, folder: epath.Path, stale: Iterable[str]) -> None:
    """Moves the staged files into `folder`, and removes the stale ones that were not staged."""
    if not folder.exists():
        stage.rename(folder)
        return
    staged = [file.name for file in stage.iterdir()]
    for name in stale:
        if name not in staged and (folder / name).exists():
            (folder / name).unlink()
    for file in sorted(stage.iterdir(), key=lambda file: file.name == CONFIG):  # it comes last
        if file.is_dir():
            _publish_folder(file, folder / file.name)
        else:
            file.replace(folder / file.name)


def _publish_folder(stage: epath.Path, folder: epath.Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in stage.iterdir():
        file.replace(folder / file.name)


def _write_tokenizer(stage: epath.Path, tokenizer: Any) -> None:
    if tokenizer is None:
        return
    if hasattr(tokenizer, "save"):
        tokenizer.save(stage)
        return
    for name, content in tokenizer.items():
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / name).write_bytes(content)


@contextlib.contextmanager
def _staging(folder: epath.Path) -> Iterator[epath.Path]:
    """A folder beside `folder`, gone at the end unless it was renamed."""
    stage = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        if stage.exists():
            stage.rmtree()


@contextlib.contextmanager
def _one_line(folder: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"cannot write {folder}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
