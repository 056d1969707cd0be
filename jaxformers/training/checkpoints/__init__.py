"""Checkpoints: writing, verifying, restoring, retention.

Imports `training.run_lock` and nothing else of training outside this room.
"""
