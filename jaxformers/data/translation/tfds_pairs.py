"""Sentence pairs of a public TFDS set that was prepared as array_record; no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.translation.parallel_text import Pair, Pairs


@dataclass(frozen=True)
class TfdsPairs:
    """A translation set, prepared in `data_dir` as array_record."""

    name: str = "wmt14_translate/de-en"
    """TFDS name: builder/config, followed by `:version` for another than the newest."""
    split: str = "train"
    """Split, slices such as `train[:1%]` included."""
    source: str = "en"
    """Feature that holds the source."""
    target: str = "de"
    """Feature that holds the target."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""

    def open(self) -> Pairs:
        """Opens the pairs, which are read from the files on access.

        Raises:
            DataError: the set is not there (with the command that prepares it), it is not in
                array_record, or it lacks the split or a feature.
        """
        return _TfdsPairs(self)


class _TfdsPairs(Pairs):
    def __init__(self, config: TfdsPairs):
        self._sides = config.source, config.target
        self._rows = TfdsRows(config.name, config.split, self._sides, config.data_dir)
        self.fingerprint = {
            "source": f"{config.name} {self._rows.version}, {config.split}, "
            f"{config.source} to {config.target}",
            "pairs": len(self),
            "content": self._rows.content,
        }

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int]) -> list[Pair]:
        source, target = self._sides
        return [(row[source], row[target]) for row in self._rows.read(indices)]
