"""Optimizers and learning-rate schedules, as small dataclasses that build optax objects.

Imports nothing of training outside this room.
"""
