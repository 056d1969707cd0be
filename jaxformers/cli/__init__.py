"""The `jaxformers` command: a table of verbs, one file a group of verbs.

Thin: parse, call the library, print.
"""

from jaxformers.cli.command import main

__all__ = ["main"]
