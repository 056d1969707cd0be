"""MarianMT's weights in Hugging Face's folders.

Imports `pretrained.formats`, `pretrained.mapping` and the model.
"""
