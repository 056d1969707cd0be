"""Sentence pairs of a public TFDS set that was prepared as array_record; no TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from jaxformers.data.pairs import Pair, Pairs
from jaxformers.errors import DataError

INFO_FILE = "dataset_info.json"
SAMPLED = 256


@dataclass(frozen=True)
class TfdsPairs:
    """A translation set that lies prepared in `data_dir`, read through array_record."""

    name: str = "wmt14_translate/de-en"
    """TFDS name: builder/config, with `:version` behind it if not the newest is wanted."""
    split: str = "train"
    """Split, slices such as `train[:1%]` included."""
    source: str = "en"
    """Feature that holds the source."""
    target: str = "de"
    """Feature that holds the target."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def open(self) -> Pairs:
        """The pairs, read from the files when asked for.

        Raises:
            DataError: the set is not there (with the command that prepares it), it is not in
                array_record, or it lacks the split or a feature.
        """
        return _TfdsPairs(self)

    @property
    def fingerprint(self) -> Mapping[str, str | int]:
        """Name, number and a hash of the sizes of all shards and of sampled pairs."""
        return self.open().fingerprint


def default_data_dir() -> str:
    """Where TFDS keeps prepared sets unless told otherwise."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")


class _TfdsPairs(Pairs):
    def __init__(self, config: TfdsPairs):
        folder = _builder_folder(config)
        self._rows = _data_source(config, folder)
        self._source, self._target = config.source, config.target
        info = json.loads((folder / INFO_FILE).read_text())
        sample = self.read([k * len(self) // SAMPLED for k in range(min(SAMPLED, len(self)))])
        content = json.dumps([info.get("splits"), config.split, sample], sort_keys=True)
        self.fingerprint = {
            "source": f"{config.name} {info.get('version')}, {config.split}, "
            f"{config.source} to {config.target}",
            "pairs": len(self),
            "content": hashlib.sha256(content.encode()).hexdigest(),
        }

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Pair]:
        rows = self._rows.__getitems__(list(indices)) if indices else []
        return [(_text(row[self._source]), _text(row[self._target])) for row in rows]


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def prepared_folder(name: str, root: epath.Path) -> epath.Path | None:
    """The folder of the newest (or the named) version of a set under `root`, if it is there."""
    name, _, version = name.partition(":")
    parent = root.joinpath(*name.split("/"))
    versions = parent.iterdir() if parent.is_dir() else ()
    ready = [folder for folder in versions if _numbers(folder) and (folder / INFO_FILE).exists()]
    ready = [folder for folder in ready if version in ("", folder.name)]
    return max(ready, key=_numbers, default=None)


def _builder_folder(config: TfdsPairs) -> epath.Path:
    """The folder of the set, which may be `data_dir` itself."""
    data_dir = config.data_dir or default_data_dir()
    root = epath.Path(data_dir).expanduser()
    if config.data_dir and (root / INFO_FILE).exists():
        return root
    folder = prepared_folder(config.name, root)
    if folder is None:
        raise DataError(
            f"{config.name} is not prepared in {data_dir}; "
            f"run: jaxformers prepare {config.name} --data-dir {data_dir}"
        )
    return folder


def _numbers(folder: epath.Path) -> tuple[int, ...]:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def _data_source(config: TfdsPairs, folder: epath.Path) -> Any:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.file_adapters.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} is kept as {builder.info.file_format.value}, not array_record; "
            f"run: jaxformers prepare {config.name} --data-dir DIR, with an empty DIR"
        )
    if missing := {config.source, config.target} - set(builder.info.features):
        raise DataError(
            f"{config.name} has no feature {', '.join(sorted(missing))}: "
            f"it has {', '.join(sorted(builder.info.features))}"
        )
    named = {part.partition("[")[0].strip() for part in config.split.split("+")}
    if not named <= set(builder.info.splits):
        raise DataError(
            f"{config.name} has no split {config.split!r}: it has {', '.join(builder.info.splits)}"
        )
    try:
        return builder.as_data_source(split=config.split)
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"split {config.split!r} of {config.name}: {reason}") from None
