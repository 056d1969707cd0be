"""Reading files: lines by index, JSON Lines, prepared TFDS sets.

Imports `data.pipeline` alone.
"""
