"""Tasks whose answer about a picture is a text: captions, questions, classes, relations.

Imports `tasks.text_image.base`, `data.scenes`, `evaluation` and `text`.
"""
