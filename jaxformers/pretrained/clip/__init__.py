"""Weights of CLIP and SigLIP: Hugging Face's folders, OpenAI's archives, open_clip's folders.

Imports `models`, `text`, `data` and the shared files of `pretrained`.
"""
