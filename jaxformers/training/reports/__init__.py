"""Progress, logs, metrics files, goodput and the report of a run.

Imports the experiment and its configuration, never the loop.
"""
