"""Members of a zip archive of arrays (`.npz`, `.pth`), checked before anything is unpacked."""

from __future__ import annotations

import contextlib
import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

from etils import epath

from jaxformers.errors import WeightsError, printable
from jaxformers.pretrained.formats.safetensors_folder import require_regular

END_BYTES = 22 + 65_535 + 20 + 56
"""Bytes of the records that end an archive, with the longest comment and those of ZIP64."""
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1 | 0x40
"""Bits of a member's flags: encrypted, strongly encrypted."""
UNPACKED_BYTES, UNPACKED_RATIO = 256 << 20, 20
"""Weights do not deflate to less than 1 / UNPACKED_RATIO; below UNPACKED_BYTES it does no harm."""
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)
DAMAGED += (RuntimeError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)
"""What Python's and NumPy's readers raise on archives, arrays and pickles that are damaged."""


def _count_members(file: IO[bytes]) -> int:
    """The number of members that the end of an archive states, which `zipfile` does not check."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - END_BYTES))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    (count,) = struct.unpack_from("<H", tail, end + 10)
    if count == 0xFFFF:  # the number is in the record of ZIP64
        (count,) = struct.unpack_from("<Q", tail, tail.rindex(b"PK\x06\x06", 0, end) + 32)
    return count


class ZipMembers:
    """The members of an archive: sizes now, contents when asked.

    Args:
        path: the archive.
        kind: what messages call a file of this format.

    Raises:
        WeightsError: a damaged or encrypted archive, another compression than deflate, a name that
            occurs twice, or contents that unpack to far more than weights do.
    """

    def __init__(self, path: epath.PathLike, kind: str):
        path = epath.Path(path).expanduser()
        self.place, self._kind = str(path), kind
        require_regular(path)
        try:
            file = path.open("rb")
            weakref.finalize(self, file.close)
            self._archive = zipfile.ZipFile(file)
            members = self._archive.infolist()
            if not members or len(members) != _count_members(file):
                raise ValueError("its directory is incomplete")
        except DAMAGED as error:
            raise self.damaged(error) from None
        for member in members:
            self._check(member)
        self.sizes: Mapping[str, int] = {member.filename: member.file_size for member in members}
        """Bytes of each member, unpacked."""
        if len(self.sizes) < len(members):
            raise WeightsError(f"{path} holds two members of one name: fetch it again")
        self.length = path.stat().length
        unpacked = sum(self.sizes.values())
        if unpacked > max(UNPACKED_BYTES, UNPACKED_RATIO * self.length):
            raise WeightsError(
                f"{path} would unpack from {self.length:,} to {unpacked:,} bytes, as no weights "
                "do: if you trust it, save it without compression (numpy.savez)"
            )

    def damaged(self, error: Exception, name: str = "") -> WeightsError:
        """The error that says that the file cannot be used: which member, and the reason."""
        reason = ": ".join(filter(None, (name, str(error) or type(error).__name__)))
        reason = printable(reason)
        return WeightsError(
            f"{self.place} is truncated, damaged or no {self._kind} ({reason}): fetch it again"
        )

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a file; its checksum is verified when the last byte is read.

        Raises:
            WeightsError: it is missing or damaged, also where the caller's reading of it fails.
        """
        try:
            with self._archive.open(name) as file:
                yield file
        except DAMAGED:
            raise WeightsError(
                f"{self.place}: {printable(name)} is damaged: fetch the file again"
            ) from None

    def read(self, name: str) -> bytes:
        """The contents of a member.

        Raises:
            WeightsError: it is missing or damaged.
        """
        with self.open(name) as file:
            return file.read()

    def _check(self, member: Any) -> None:
        where = f"{self.place}: {printable(member.filename)}"
        if member.flag_bits & ENCRYPTED:
            raise WeightsError(f"{where} is encrypted: save the file without a password")
        if member.compress_type not in COMPRESSIONS:
            raise WeightsError(
                f"{where} is compressed by method {member.compress_type}, and only deflate is "
                "supported: save the file anew"
            )
