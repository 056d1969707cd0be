"""Tasks whose answer is a picture: synthesis, inpainting, maps of segments, depth and normals.

Imports `tasks.text_image.base`, `data.scenes`, `evaluation` and `text`.
"""
