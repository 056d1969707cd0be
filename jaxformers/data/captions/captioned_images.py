"""What every source of captioned images gives."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from etils import epath
from PIL import Image

from jaxformers.data.images.decoding import decoding, opened, pixels
from jaxformers.errors import DamagedImageError, DataError
from jaxformers.fields import CheckedFields

BLOCK = 1024  # images decoded between two waits for all threads
MOST_THREADS = 16


class CaptionedImages:
    """Images that can be looked up, each with one or several captions.

    Attributes:
        source: where they come from, for messages.
        skipped: entries that were left out: without an image or a caption, or damaged.
    """

    source: str = ""
    skipped: int = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def image(self, index: int) -> Image.Image:
        """The image at `index`, perhaps not yet decoded.

        Raises:
            DataError: it is missing or no image.
        """
        raise NotImplementedError

    def captions(self, index: int) -> Sequence[str]:
        """The captions of that image, one at least."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """What messages call the image at `index`."""
        return f"{self.source}, image {index:,}"

    def name(self, index: int) -> str:
        """The image's name in its source, else its number."""
        return str(index)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Source, number and a hash of names and captions."""
        return {"source": self.source, "examples": len(self), "content": self.content}

    @cached_property
    def content(self) -> str:
        """SHA-256 of all names and captions."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            entry = "\0".join([self.name(index), *self.captions(index), ""])
            # A file name that is no UTF-8 has surrogates for its bytes.
            digest.update(entry.encode(errors="surrogatepass"))
        return digest.hexdigest()

    def leave_out_damaged(self) -> None:
        """Leaves out images that do not decode and counts them; each image is decoded once.

        Raises:
            DataError: none is left.
        """
        intact: list[int] = []
        with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
            for start in range(0, len(self), BLOCK):
                indices = range(start, min(start + BLOCK, len(self)))
                flags = pool.map(self._decodes, indices)
                intact += [i for i, decodes in zip(indices, flags, strict=True) if decodes]
        if not intact:
            raise DataError(f"{self.source}: no image in it decodes")
        self.skipped += len(self) - len(intact)
        self._select(intact)

    def _decodes(self, index: int) -> bool:
        try:
            with decoding(self.where(index)):
                pixels(self.image(index))
        except DamagedImageError:
            return False
        return True

    def _select(self, indices: Sequence[int]) -> None:
        """Retains the images at `indices` alone."""
        raise NotImplementedError


class CaptionFiles(CaptionedImages):
    """Images in files, their captions in memory.

    Args:
        source: what messages call them.
        paths: of the images.
        captions: of each image, one at least.
        skipped: entries that were left out.

    Raises:
        DataError: no image.
    """

    def __init__(
        self,
        source: str,
        paths: Sequence[epath.Path | Path],
        captions: Sequence[Sequence[str]],
        skipped: int = 0,
    ):
        if not paths:
            raise DataError(f"{source}: no image with a caption in it")
        self.source, self.skipped = source, skipped
        self._paths, self._captions = list(paths), [tuple(texts) for texts in captions]

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Image.Image:
        """The image's file, opened."""
        path = self._paths[index]
        with decoding(str(path)):
            return opened(path.read_bytes(), str(path))

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of the image."""
        return self._captions[index]

    def where(self, index: int) -> str:
        """The path of the image."""
        return str(self._paths[index])

    def name(self, index: int) -> str:
        """The file name of the image."""
        return self._paths[index].name

    def _select(self, indices: Sequence[int]) -> None:
        self._paths = [self._paths[i] for i in indices]
        self._captions = [self._captions[i] for i in indices]


class CaptionSource(CheckedFields):
    """What the sources share: configuration that `open` reads."""

    def open(self) -> CaptionedImages:
        """The captioned images; raises DataError where they are missing or malformed."""
        raise NotImplementedError


def caption_lines(text: str) -> tuple[str, ...]:
    """The captions of a text file: its lines that are not blank."""
    # Not `splitlines`, which also splits at U+2028 and other characters within a caption.
    return tuple(line.strip() for line in re.split(r"[\r\n]", text) if line.strip())


def caption_texts(value: Any) -> tuple[str, ...]:
    """The captions in a field of a table or of JSON, those that are not blank.

    Args:
        value: a text, bytes in UTF-8, an object with its text as `raw` or `text` (Karpathy and
            Li's splits of COCO), a list of these, or None.

    Raises:
        ValueError: anything else; the message goes behind the name of the entry.
    """
    texts = []
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, Mapping):
            text = text.get("raw", text.get("text", text))
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError:
                raise ValueError(f"has a caption that is not UTF-8: {text!r:.60}") from None
        if text is not None and not isinstance(text, str):
            raise ValueError(f"has a caption that is no text: {text!r:.60}")
        if text and text.strip():
            texts.append(text.strip())
    return tuple(texts)


def refuse_or_count(faults: list[str], source: str, skip: bool) -> int:
    """The number of faulty entries, if they may be skipped.

    Raises:
        DataError: they may not; it names the first and how to skip them.
    """
    if faults and not skip:
        more = f" and {len(faults) - 1:,} more" if len(faults) > 1 else ""
        raise DataError(f"{source}: {faults[0]}{more}; leave them out with skip_faulty")
    return len(faults)
