"""Random crops, RandAugment and erasing on the host.

Imports `data.images.decoding` and `data.pipeline`.
"""
