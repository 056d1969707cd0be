"""What a notebook calls: published weights and our own runs, in and out, and used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from etils import epath

from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.tasks.translation import Search
from jaxformers.tasks.translation_evaluation import translate as translate_texts
from jaxformers.text import Tokenizer, load_tokenizer
from jaxformers.training.runs import is_run, load_run, tokenizer_folder

__all__ = ["from_pretrained", "load_text", "save_pretrained", "translate"]


def from_pretrained(path: epath.PathLike, execution: Execution | None = None) -> tuple[Any, dict]:
    """The model and its variables from a published folder, a hub name, or a run of ours.

    Args:
        path: a folder with `config.json` and `model.safetensors` (MarianMT, or our own format), a
            run's folder (its final weights, or its newest good checkpoint), or "org/name".
        execution: compute type and the like; the weights stay float32.

    Returns:
        `(model, variables)` for `model.apply(variables, ...)`.

    Raises:
        WeightsError: missing, unexpected or misshapen tensors, a damaged or unsupported file.
        CheckpointError: a run without a usable checkpoint.
    """
    execution = execution or Execution()
    return load_run(path, execution) if is_run(path) else load_pretrained(path, execution)


def load_text(path: epath.PathLike) -> Tokenizer:
    """The tokenizer that belongs to a published folder or a run."""
    return load_tokenizer(tokenizer_folder(path) if is_run(path) else path)


def translate(
    run_or_path: epath.PathLike, sentences: Sequence[str], *, beams: int = 4, alpha: float = 0.6
) -> list[str]:
    """Translations of `sentences` by a run of ours or a published folder, in their order.

    Args:
        run_or_path: as for `from_pretrained`; it is kept loaded for the next call.
        sentences: an empty one stays empty.
        beams: width of the beam search; 1 is greedy.
        alpha: of the length penalty.

    Raises:
        DataError: a sentence with more tokens than the model has positions.
    """
    if isinstance(sentences, str):
        sentences = [sentences]
    model, variables, tokenizer = _loaded(str(run_or_path))
    return translate_texts(model, variables, tokenizer, sentences, Search(beams, alpha))


@lru_cache(maxsize=2)
def _loaded(path: str) -> tuple[Any, dict, Tokenizer]:
    return (*from_pretrained(path), load_text(path))
