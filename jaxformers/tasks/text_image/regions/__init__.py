"""Tasks whose answers are boxes or points in a picture.

Imports `tasks.text_image.base`, `data.scenes`, `evaluation` and `text`.
"""
