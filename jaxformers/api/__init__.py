"""Functions for notebooks: published weights and runs in and out, and their use.

May be imported by `cli`; imports all rooms below.
"""

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
    "classify",
    "classify_images",
    "embed",
    "embed_images",
    "explain",
    "fill_mask",
    "from_nnx",
    "from_pretrained",
    "load_images",
    "load_text",
    "probe",
    "save_pretrained",
    "search",
    "tag",
    "to_nnx",
    "translate",
    "zero_shot",
]
