"""The tokenizer of a run: made once, by the first host, and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest

import jax
from etils import epath
from jax.experimental import multihost_utils

from jaxformers.errors import ConfigError
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.tasks.processor import TOKENIZER
from jaxformers.tasks.text.bert_inputs import check_template
from jaxformers.text import (
    HuggingFaceTokenizer,
    Tokenizer,
    WordPiece,
    holds_tokenizer,
    load_tokenizer,
)

EncoderTokenizer = WordPiece | HuggingFaceTokenizer


def run_tokenizer(
    folder: epath.PathLike,
    host: int,
    size: int,
    make: Callable[[], Tokenizer],
    *,
    spare_rows: bool = False,
) -> Tokenizer:
    """The tokenizer of the run in `folder`; the first host makes it once, the others wait.

    Before the run's first checkpoint it is made anew, for what it is made of may have been mended.

    Args:
        folder: of the run.
        host: the number of this host; host 0 writes.
        size: rows of the model's embedding.
        make: trains or loads the tokenizer.
        spare_rows: whether the embedding may have more rows than there are tokens, as that of
            published weights may.

    Raises:
        ConfigError: its number of tokens does not fit `size`.
    """
    path, begun = epath.Path(folder) / TOKENIZER, (epath.Path(folder) / "checkpoints").exists()
    many = jax.process_count() > 1
    if many and host:
        multihost_utils.sync_global_devices("vocabulary")
    reuse = path.exists() and (begun or bool(host))
    tokenizer = load_tokenizer(path) if reuse else make()
    _check_size(tokenizer, size, spare_rows)
    if not reuse:
        tokenizer.save(path)
    if many and not host:
        multihost_utils.sync_global_devices("vocabulary")
    return tokenizer


def _check_size(tokenizer: Tokenizer, size: int, spare_rows: bool) -> None:
    fits = tokenizer.vocab_size <= size if spare_rows else tokenizer.vocab_size == size
    if not fits:
        raise ConfigError(
            f"the vocabulary has {tokenizer.vocab_size} tokens but the model {size}; set "
            f"--task.model.vocab-size {tokenizer.vocab_size}, or name the vocabulary of the weights"
        )


def word_pieces(
    path: str | None, weights: str | None, texts: Iterable[str], size: int, lowercase: bool = True
) -> EncoderTokenizer:
    """BERT's vocabulary in the folder `path`, else that of `weights`, else one trained on `texts`.

    Args:
        path: a folder; None: none.
        weights: a published folder, a run, or a hub's name; None: none.
        texts: what a vocabulary of `size` tokens is trained on.
        size: of a trained one.
        lowercase: whether a trained one is uncased.

    Raises:
        ConfigError: the named one has other pieces than that of the weights.
    """
    if path is not None:
        named = _load_encoder_tokenizer(path)
        if weights is not None:
            _check_pieces(named, path, weights)
        return named
    if weights is not None:
        return _load_encoder_tokenizer(resolve(weights))
    return WordPiece.train(texts, size, lowercase)


def _load_encoder_tokenizer(folder: epath.PathLike) -> EncoderTokenizer:
    tokenizer = load_tokenizer(folder)
    if not isinstance(tokenizer, EncoderTokenizer):
        kind = type(tokenizer).__name__
        raise ConfigError(
            f"{folder} holds a {kind} tokenizer; BERT needs a WordPiece one or a tokenizer.json"
        )
    check_template(tokenizer, folder)
    return tokenizer


def _check_pieces(named: EncoderTokenizer, path: str, weights: str) -> None:
    """Refuses pieces that the weights know by other ids; weights without a vocabulary may be any's.

    How text is cut into words may differ.
    """
    folder = resolve(weights)
    if not holds_tokenizer(folder):
        return
    learned = _load_encoder_tokenizer(folder).vocabulary
    for index, (ours, theirs) in enumerate(zip_longest(named.vocabulary, learned)):
        if ours != theirs:
            raise ConfigError(
                f"the vocabulary in {path} is not that of the weights in {weights}: token {index} "
                f"is {_piece(ours)} and not {_piece(theirs)}; leave it out to take the weights' own"
            )


def _piece(piece: str | None) -> str:
    return "missing" if piece is None else ascii(piece)
