"""Unified-IO's published weights: names, configuration, Flax's msgpack files, the family.

Imports `pretrained.formats`, `pretrained.mapping` and what these may import.
"""
