"""Images with captions: folders, tables, tar shards, TFDS, the bundled emoji, and rows of batches.

Imports `data.pipeline`, `data.images`, `data.files`, `text`, `fields` and `errors`.
"""

from jaxformers.data.captions.caption_folder import CaptionFolder
from jaxformers.data.captions.caption_rows import CaptionPlan, CaptionRows
from jaxformers.data.captions.caption_table import CaptionTable
from jaxformers.data.captions.captioned_images import CaptionedImages, CaptionSource
from jaxformers.data.captions.emoji import BundledEmoji
from jaxformers.data.captions.emoji_groups import EmojiGroups
from jaxformers.data.captions.tar_shards import TarShards
from jaxformers.data.captions.tfds_captions import TfdsCaptions

__all__ = [
    "BundledEmoji",
    "CaptionFolder",
    "CaptionPlan",
    "CaptionRows",
    "CaptionSource",
    "CaptionTable",
    "CaptionedImages",
    "EmojiGroups",
    "TarShards",
    "TfdsCaptions",
]
