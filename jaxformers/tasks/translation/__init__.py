"""Translation: the task, its evaluation, its probe.

Imports `tasks.base`, the shared files beside it and `tasks.text.vocabulary`.
"""
