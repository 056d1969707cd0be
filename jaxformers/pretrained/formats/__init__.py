"""File formats of weights: safetensors folders, `.npz`, `.pth`, TensorFlow, our own; the hub.

Nothing here knows a model family.
"""
