"""What published files say of image preprocessing, in and out.

Imports `data.images` and `pretrained.formats`.
"""
