"""Tags of words: the task, its evaluation, and its use on plain text.

Imports the files of `tasks.text`, `data`, `evaluation` and `pretrained`.
"""
