"""How a sentence-embedding folder makes one vector of a text: the files of sentence-transformers.

`modules.json` names the parts (encoder, pooling, perhaps a normalisation), `1_Pooling/config.json`
the pooling, `sentence_bert_config.json` the longest text.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from etils import epath

from jaxformers.errors import WeightsError
from jaxformers.pretrained.formats.safetensors_folder import OLD_PLACE, read_json

MODULES, ENCODER, OVERALL = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
Mode = Literal["cls", "max", "mean", "mean_sqrt_len"]
# In the order in which vectors of several modes are joined.
MODES: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}
LARGEST_FILE = 1 << 20  # bytes


@dataclass(frozen=True)
class Pooling:
    """From the states of a text's tokens, special ones included, to its vector."""

    modes: tuple[Mode, ...] = ("mean",)
    """The first token, the greatest of each feature, the mean, or the sum over the root of the
    number of tokens; of several the vectors are joined."""
    normalize: bool = False
    """Whether vectors are brought to length 1."""
    max_length: int | None = None
    """Tokens that a longer text is cut to; None: the model's positions."""
    lowercase: bool = False
    """Whether texts are put into small letters before the tokenizer sees them."""
    prompt: str = ""
    """What is put before every text."""


def read_pooling(folder: Any) -> Pooling:
    """The pooling of a folder; the plain mean where its files say nothing.

    Raises:
        WeightsError: a damaged file, or a part that is not supported; one line.
    """
    folder = epath.Path(folder)
    if folder.name == OLD_PLACE and not (folder / MODULES).exists():
        folder = folder.parent
    if not (folder / MODULES).exists():
        return Pooling()
    modules = _parts(folder / MODULES)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise WeightsError(
            f"{folder / MODULES}: the parts {', '.join(kinds)} are not supported, only "
            "Transformer, Pooling and then perhaps Normalize"
        )
    modes, with_prompt = _modes(folder / modules[1][1] / "config.json")
    max_length, lowercase = _encoder(folder / modules[0][1])
    prompt = _prompt(folder / OVERALL)
    if prompt and not with_prompt:
        raise WeightsError(f"{folder}: pooling without the prompt's tokens is not supported")
    return Pooling(modes, "Normalize" in kinds, max_length, lowercase, prompt)


def _parts(file: epath.Path) -> list[tuple[str, str]]:
    """The kind and the folder of each part."""
    try:
        if file.stat().length > LARGEST_FILE:
            raise ValueError
        modules = json.loads(file.read_bytes())
        kinds_and_paths = [
            (module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError(f"{file} is damaged: it must list parts with type and path") from None
    for _, path in kinds_and_paths:
        if not re.fullmatch(r"(\w[\w.-]*)?", str(path)):
            raise WeightsError(f"{file} names {path!r}, which is no folder beside it")
    return kinds_and_paths


def _modes(file: epath.Path) -> tuple[tuple[Mode, ...], bool]:
    """The modes, and whether a prompt's tokens count."""
    config = read_json(file)
    named = config.get("pooling_mode")  # newer files name the modes
    named = [named] if isinstance(named, str) else named
    if named is None:
        on = [key for key in config if key.startswith("pooling_mode_") and config[key] is True]
        named = [MODES.get(key, key) for key in sorted(on, key=[*MODES, *on].index)]
    if not isinstance(named, list) or not named or not set(named) <= set(MODES.values()):
        raise WeightsError(
            f"{file}: the pooling {named!r} is not supported, only {', '.join(MODES.values())}"
        )
    return tuple(named), config.get("include_prompt", True) is True


def _encoder(folder: epath.Path) -> tuple[int | None, bool]:
    """The longest text in tokens, and whether it is put into small letters."""
    config = read_json(folder / ENCODER) if (folder / ENCODER).exists() else {}
    path, limit = folder / ENCODER, config.get("max_seq_length")
    tokenizer_config = folder / "tokenizer_config.json"
    if limit is None and tokenizer_config.exists():
        path, limit = tokenizer_config, read_json(tokenizer_config).get("model_max_length")
    usable = isinstance(limit, int | float) and 2 <= limit < math.inf
    if limit is not None and not usable:
        raise WeightsError(f"{path}: {limit!r} cannot be the most tokens of a text")
    return None if limit is None else int(limit), config.get("do_lower_case") is True


def _prompt(file: epath.Path) -> str:
    config = read_json(file) if file.exists() else {}
    if (name := config.get("default_prompt_name")) is None:
        return ""
    prompts = config.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(prompt, str):
        raise WeightsError(f"{file} has no prompt {name!r}, which it says to use")
    return prompt
