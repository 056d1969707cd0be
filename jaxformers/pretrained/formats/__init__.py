"""File formats of weights: safetensors, Flax, `.npz`, `.pth`, TensorFlow, our own; the hub.

Nothing here knows a model family.
"""
