"""The tokenizer of a run: made once, by the first host, and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
from etils import epath
from jax.experimental import multihost_utils

from jaxformers.errors import ConfigError
from jaxformers.pretrained.hub import resolve
from jaxformers.text import Tokenizer, WordPiece, load_tokenizer


def run_tokenizer(
    folder: epath.PathLike, host: int, size: int, make: Callable[[], Tokenizer]
) -> Tokenizer:
    """The tokenizer of the run in `folder`; the first host makes it once, the others wait.

    Raises:
        ConfigError: it has not `size` tokens, which are the model's.
    """
    place = epath.Path(folder) / "tokenizer"
    many = jax.process_count() > 1
    if many and host:
        multihost_utils.sync_global_devices("vocabulary")
    if place.exists():
        tokenizer = load_tokenizer(place)
    else:
        tokenizer = make()
        tokenizer.save(place)
    if many and not host:
        multihost_utils.sync_global_devices("vocabulary")
    if tokenizer.vocab_size != size:
        raise ConfigError(
            f"the vocabulary has {tokenizer.vocab_size} tokens but the model {size}; set "
            f"--task.model.vocab-size {tokenizer.vocab_size}"
        )
    return tokenizer


def word_pieces(
    path: str | None, weights: str | None, texts: Iterable[str], size: int, lowercase: bool = True
) -> WordPiece:
    """BERT's vocabulary in the folder `path`, else that of `weights`, else one trained on `texts`.

    Args:
        path: a folder; None: none.
        weights: a published folder, a run, or a hub's name; None: none.
        texts: what a vocabulary of `size` tokens is trained on.
        size: of a trained one.
        lowercase: whether a trained one is uncased.
    """
    if path is not None:
        return WordPiece.load(path)
    if weights is not None:
        return WordPiece.load(resolve(weights))
    return WordPiece.train(texts, size, lowercase)
