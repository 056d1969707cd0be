"""Parallel text and its token ids.

Imports `data.files` and `data.pipeline`.
"""
