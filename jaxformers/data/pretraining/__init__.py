"""BERT's pre-training examples from documents: sentences, chunks, pairs, masks.

Imports `data.files` and `data.pipeline`.
"""
