"""Training of image tokenizers: VQGAN with its losses, its discriminator and its evaluation.

Imports `models`, `pretrained`, `data`, `evaluation` and the tasks on images.
"""
