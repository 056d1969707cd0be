"""Published weights in and out: MarianMT folders, Hugging Face's hub, and our own format."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import folder, marian, own
from jaxformers.pretrained.families import PLAIN, Variables
from jaxformers.pretrained.hub import fetch
from jaxformers.pretrained.marian_config import MODEL_TYPE

__all__ = ["load_pretrained", "save_pretrained"]

Format = Literal["auto", "marian", "jaxformers"]
LOADERS = {MODEL_TYPE: marian.load}


def load_pretrained(
    path_or_name: Any, execution: Execution = PLAIN
) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a published folder and its variables `{"params": ...}`, float32 `jax.Array`s.

    Args:
        path_or_name: a folder (local or gs://) whose `config.json` says MarianMT or our own
            format, or a model's name on Hugging Face's hub: "org/name", or "org/name@revision".
        execution: how the model computes; its padded vocabulary is put in.

    Raises:
        WeightsError: no such model, one that is not supported, damaged files, tensors that do not
            fit. One line that names them; nothing is loaded in part.
    """
    path = resolve(path_or_name)
    config = folder.read_json(path / folder.CONFIG)
    if config.get("format") == own.FORMAT:
        load = own.load
    elif (kind := config.get("model_type")) in LOADERS:
        load = LOADERS[kind]
    else:
        raise WeightsError(_unsupported(kind, path / folder.CONFIG))
    model, variables = load(path, execution)
    return model, jax.tree.map(jnp.asarray, variables)


def save_pretrained(
    model: nn.Module,
    variables: Variables,
    path: Any,
    format: Format = "auto",
    *,
    tokenizer: Any = None,
) -> None:
    """Writes a folder that `load_pretrained` reads.

    Args:
        model: a model of the library.
        variables: its variables; float32 is written, on one host.
        path: the folder; files in it of other names stay.
        format: "marian" for what Hugging Face's MarianMTModel loads; "jaxformers" for our own,
            which keeps everything; "auto" for MarianMT where it is exact.
        tokenizer: a `text.Tokenizer`, or a folder whose tokenizer files are copied in.

    Raises:
        WeightsError: a model that the format cannot express, variables that do not fit the model,
            or a folder that cannot be written.
    """
    if format not in ("auto", "marian", "jaxformers"):
        raise WeightsError(f"no format {format!r}: choose auto, marian or jaxformers")
    if format == "auto":
        format = "jaxformers" if marian.why_not(model, variables) else "marian"
    save = marian.save if format == "marian" else own.save
    save(model, variables, path, tokenizer)


def resolve(path_or_name: Any) -> epath.Path:
    """The folder meant: the one at that path, or the hub's model of that name, fetched."""
    path = epath.Path(path_or_name).expanduser()
    if (path / folder.CONFIG).exists():
        return path
    if path.is_dir():
        raise WeightsError(f"{path} holds no {folder.CONFIG}, so it is no model's folder")
    if path.exists():
        raise WeightsError(f"{path} is a file: give the folder that holds {folder.CONFIG}")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?", str(path_or_name)):
        return fetch(str(path_or_name))
    raise WeightsError(f"there is no folder {path}")


def _unsupported(kind: Any, place: epath.Path) -> str:
    known = ", ".join(repr(name) for name in LOADERS)
    if not isinstance(kind, str):
        return f"{place} has no model_type, so it is no published model ({known} is supported)"
    close = difflib.get_close_matches(kind, LOADERS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{place}: model_type {kind!r} is not supported, {known} is{hint}"
