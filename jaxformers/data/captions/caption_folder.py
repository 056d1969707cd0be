"""A folder of images, each with its captions in a text file of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxformers.data.captions.captioned_images import (
    CaptionFiles,
    CaptionSource,
    caption_lines,
    refuse_or_count,
)
from jaxformers.errors import DataError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif")


@dataclass(frozen=True)
class CaptionFolder(CaptionSource):
    """`NAME.png` with its captions in `NAME.txt`, one a line; sub-folders are searched too."""

    path: str
    skip_faulty: bool = False
    """Whether images without captions, and captions without an image, are left out and counted."""

    def open(self) -> CaptionFiles:
        """The images, in the order of their paths.

        Raises:
            DataError: no such folder, an image without a caption, or a caption without an image.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            raise DataError(f"{self.path}: no such folder")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        images = [path for path in files if path.suffix.lower() in ENDINGS]
        texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
        faults, paths, captions = [], [], []
        for path in images:
            text = texts.pop(path.with_suffix(""), None)
            lines = caption_lines(_read(text)) if text is not None else ()
            if lines:
                paths.append(path)
                captions.append(lines)
            else:
                faults.append(f"{path.name} has no caption in {path.with_suffix('.txt').name}")
        faults += [f"{path.name} has no image beside it" for path in texts.values()]
        skipped = refuse_or_count(faults, self.path, self.skip_faulty)
        return CaptionFiles(self.path, paths, captions, skipped)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: its text cannot be read: {error}") from None
