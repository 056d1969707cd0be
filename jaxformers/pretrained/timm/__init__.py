"""timm's folders: which network an architecture's name means, and what `config.json` changes.

Imports `pretrained.formats` and `pretrained.mapping`.
"""
