"""VQGAN's weights: the names of taming-transformers and of Unified-IO's release, and the family.

Imports the formats and mappings of `pretrained`.
"""
