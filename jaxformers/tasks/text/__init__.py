"""Tasks over texts: pre-training, classification, spans, embeddings.

Imports `tasks.base` and the shared files beside it.
"""
