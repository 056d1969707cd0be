"""Name maps between published tensors and our variables, and the transforms on their values.

Nothing here knows a file format.
"""
