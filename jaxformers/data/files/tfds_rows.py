"""Rows of a public TFDS set that was prepared as array_record; no TensorFlow."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.errors import DataError
from jaxformers.regular_files import check_regular

INFO_FILE = "dataset_info.json"
SAMPLED = 256


class TfdsRows:
    """The rows of one split, read at random, each a dict of the features asked for.

    Texts come as `str`, other features as TFDS decodes them.

    Args:
        name: TFDS name: builder/config, with `:version` behind it if not the newest is wanted.
        split: split, slices such as `train[:1%]` included.
        features: the features that are read.
        data_dir: folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        encoded: those of them, pictures, that stay bytes as they are in the files.

    Raises:
        DataError: the set is not there (with the command that prepares it), it is not in
            array_record, or it lacks the split or a feature.
    """

    def __init__(
        self,
        name: str,
        split: str,
        features: Sequence[str],
        data_dir: str | None = None,
        encoded: Sequence[str] = (),
    ):
        folder = _builder_folder(name, data_dir)
        self._rows, self.info = _data_source(name, split, features, folder, encoded)
        self._features, self._encoded = tuple(features), tuple(encoded)
        info = json.loads((folder / INFO_FILE).read_text())
        self.version = info.get("version")
        sample = self.read(evenly_spaced(len(self), SAMPLED).tolist())
        content = [info.get("splits"), split, [list(map(_plain, row.values())) for row in sample]]
        self.content = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        """A hash of the sizes of all shards and of sampled rows."""

    def __len__(self) -> int:
        return len(self._rows)

    def read(
        self, indices: Sequence[int], features: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """The rows at `indices`, or of each only those `features`."""
        rows = self._rows.__getitems__(list(indices)) if indices else []
        names = self._features if features is None else features
        return [{name: self._value(row, name) for name in names} for row in rows]

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        return row[name] if name in self._encoded else _text(row[name])


def split_sizes(name: str, data_dir: str | None = None) -> dict[str, int]:
    """How many rows each split of a prepared set has; raises DataError where it is not there."""
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(_builder_folder(name, data_dir)).info
    return {split: split_info.num_examples for split, split_info in info.splits.items()}


def default_data_dir() -> str:
    """Where TFDS keeps prepared sets unless told otherwise."""
    return os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets")


def _text(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _text(item) for name, item in value.items()}
    if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype.kind == "O"):
        return [_text(item) for item in value]
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return value if isinstance(value, str) else getattr(value, "tolist", lambda: value)()


def prepared_folder(name: str, root: epath.Path) -> epath.Path | None:
    """The folder of the newest (or the named) version of a set under `root`, if it is there.

    A set without a configuration in its name may have one that is called as the set is, as
    conll2003 has.
    """
    name, _, version = name.partition(":")
    folder = root.joinpath(*name.split("/"))
    parents = [parent for parent in (folder, folder / folder.name) if parent.is_dir()]
    versions = [entry for parent in parents for entry in parent.iterdir()]
    ready = [entry for entry in versions if _numbers(entry) and (entry / INFO_FILE).exists()]
    ready = [entry for entry in ready if version in ("", entry.name)]
    return max(ready, key=_numbers, default=None)


def _builder_folder(name: str, data_dir: str | None) -> epath.Path:
    """The folder of the set, which may be `data_dir` itself."""
    location = data_dir or default_data_dir()
    root = epath.Path(location).expanduser()
    if data_dir and (root / INFO_FILE).exists():
        return root
    folder = prepared_folder(name, root)
    if folder is None:
        raise DataError(
            f"{name} is not prepared in {location}; run: "
            f"jaxformers prepare {name} --data-dir {location}"
        )
    return folder


def _numbers(folder: epath.Path) -> tuple[int, ...]:
    numbers = folder.name.split(".")
    return tuple(map(int, numbers)) if all(number.isdigit() for number in numbers) else ()


def _data_source(
    name: str, split: str, features: Sequence[str], folder: epath.Path, encoded: Sequence[str]
) -> tuple[Any, Any]:
    import tensorflow_datasets as tfds

    check_regular(folder / INFO_FILE, DataError)
    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is not tfds.core.file_adapters.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} is kept as {builder.info.file_format.value}, not array_record; "
            f"run: jaxformers prepare {name} --data-dir DIR, with an empty DIR"
        )
    if missing := set(features) - set(builder.info.features):
        raise DataError(
            f"{name} has no feature {', '.join(sorted(missing))}: "
            f"it has {', '.join(sorted(builder.info.features))}"
        )
    named = {term.partition("[")[0].strip() for term in split.split("+")}
    if not named <= set(builder.info.splits):
        raise DataError(f"{name} has no split {split!r}: it has {', '.join(builder.info.splits)}")
    try:
        unread = _left_encoded(builder.info.features, set(features) - set(encoded))
        return builder.as_data_source(split=split, decoders=unread), builder.info
    except (ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"split {split!r} of {name}: {reason}") from None


def _left_encoded(features: Mapping[str, Any], decoded: set[str]) -> dict[str, Any]:
    """Decoders that leave pictures as bytes, but for those in `decoded`."""
    import tensorflow_datasets as tfds

    pictures = [
        name for name, feature in features.items() if isinstance(feature, tfds.features.Image)
    ]
    return {name: tfds.decode.SkipDecoding() for name in pictures if name not in decoded}
