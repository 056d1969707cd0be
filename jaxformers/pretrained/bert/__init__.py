"""BERT's weights: Hugging Face's folders, Google's checkpoints, sentence embeddings.

Imports `pretrained.formats`, `pretrained.mapping` and the model.
"""
