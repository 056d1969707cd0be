"""Contrastive training of image and text towers.

Imports `models`, `data`, `text`, `pretrained`, and the files at the top of `tasks`.
"""
