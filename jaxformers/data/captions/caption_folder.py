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
from jaxformers.data.images.sources.folder_listing import ENDINGS
from jaxformers.errors import DataError


@dataclass(frozen=True)
class CaptionFolder(CaptionSource):
    """`NAME.png` with its captions in `NAME.txt`, one a line; sub-folders are searched too."""

    path: str
    skip_faulty: bool = False
    """Whether images without captions, captions without an image, and damaged files are left out
    and counted. To know, `open` decodes every image once."""

    def open(self) -> CaptionFiles:
        """The images, in the order of their paths.

        Raises:
            DataError: no such folder, an image without a caption, a caption without an image, or a
                text that is not UTF-8.
        """
        folder = Path(self.path)
        if not folder.is_dir():
            raise DataError(f"{self.path}: no such folder")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        image_paths = [path for path in files if path.suffix.lower() in ENDINGS]
        texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
        faults, paths, captions = [], [], []
        for path in image_paths:
            text = texts.pop(path.with_suffix(""), None)
            try:
                content = b"" if text is None else text.read_bytes()
                lines = caption_lines(content.decode("utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"the caption of {path.name} cannot be read: {error}")
                continue
            if lines:
                paths.append(path)
                captions.append(lines)
            else:
                faults.append(f"{path.name} has no caption in {path.with_suffix('.txt').name}")
        faults += [f"{path.name} has no image beside it" for path in texts.values()]
        skipped = refuse_or_count(faults, self.path, self.skip_faulty)
        images = CaptionFiles(self.path, paths, captions, skipped)
        if self.skip_faulty:
            images.leave_out_damaged()
        return images
