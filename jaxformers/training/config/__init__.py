"""Experiment files, their JSON, and overrides from the command line.

Imports `training.experiment` and what lies below training.
"""
