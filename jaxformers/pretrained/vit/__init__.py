"""ViT's and MAE's weights: Hugging Face's folders, Google's `.npz`, timm's names.

Imports `pretrained.formats`, `pretrained.mapping` and the models.
"""
