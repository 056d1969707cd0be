"""Reads and writes the image preprocessing of published folders and files.

Imports `data.images` and `pretrained.formats`.
"""
