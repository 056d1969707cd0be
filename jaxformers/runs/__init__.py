"""What one does with an experiment besides training it: check, describe, evaluate, tune, compare.

Imports `training` and everything below it.
"""
