"""Functions for notebooks: published weights and runs in and out, and their use.

May be imported by `cli`; imports all rooms below.
"""

from jaxformers.api.ask import (
    answer_about,
    ask,
    caption,
    depth,
    detect,
    inpaint,
    keypoints,
    locate,
    normals,
    paint,
    segment,
)
from jaxformers.api.image_probe import probe
from jaxformers.api.image_search import search
from jaxformers.api.image_text import zero_shot
from jaxformers.api.images import classify_images, embed_images, explain
from jaxformers.api.loading import from_pretrained, load_images, load_text
from jaxformers.api.nnx_bridge import from_nnx, to_nnx
from jaxformers.api.text import answer, classify, embed, fill_mask, tag, translate
from jaxformers.pretrained import save_pretrained

__all__ = [
    "answer",
    "answer_about",
    "ask",
    "caption",
    "classify",
    "classify_images",
    "depth",
    "detect",
    "embed",
    "embed_images",
    "explain",
    "fill_mask",
    "from_nnx",
    "from_pretrained",
    "inpaint",
    "keypoints",
    "load_images",
    "load_text",
    "locate",
    "normals",
    "paint",
    "probe",
    "save_pretrained",
    "search",
    "segment",
    "tag",
    "to_nnx",
    "translate",
    "zero_shot",
]
