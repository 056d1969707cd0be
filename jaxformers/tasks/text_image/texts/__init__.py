"""Tasks on text alone, and denoising of texts and pictures.

Imports `tasks.text_image.base`, `tasks.text_image.answers`, `data`, `evaluation` and `text`.
"""
