"""Where labelled images come from: folders, TFDS, VTAB, the bundled set.

Imports `data.images.decoding`, `data.files` and `data.pipeline`.
"""
