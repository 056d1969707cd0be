"""The tokenizers of CLIP and SigLIP, and the rows of ids that their text towers read.

Imports `text.base`, `text.json_files`, `text.added_tokens`, `text.word_piece_files` and `errors`.
"""

from jaxformers.text.clip.openai import CLIPTokenizer, count_cut, padded_rows
from jaxformers.text.clip.siglip import SigLIPTokenizer

__all__ = ["CLIPTokenizer", "SigLIPTokenizer", "count_cut", "padded_rows"]
