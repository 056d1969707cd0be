"""The tokenizer of a run: made once, by the first host, and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable

import jax
from etils import epath
from jax.experimental import multihost_utils

from jaxformers.text import Tokenizer, load_tokenizer


def run_tokenizer(folder: epath.Path, host: int, make: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokenizer in `folder`; where there is none the first host makes it, the others wait."""
    many = jax.process_count() > 1
    if many and host:
        multihost_utils.sync_global_devices("vocabulary")
    if folder.exists():
        tokenizer = load_tokenizer(folder)
    else:
        tokenizer = make()
        tokenizer.save(folder)
    if many and not host:
        multihost_utils.sync_global_devices("vocabulary")
    return tokenizer
