"""Sentences whose words are tagged: schemes of tags, sources, and rows of ids with labels.

Imports `data.files`, `data.pipeline` and `data.translation`.
"""
