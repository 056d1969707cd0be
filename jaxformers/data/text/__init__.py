"""Labelled texts, text pairs and questions: GLUE, SQuAD, one's own files.

Imports `data.files` and `data.pipeline`.
"""
