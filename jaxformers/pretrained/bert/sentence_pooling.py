"""How a sentence-embedding folder makes one vector of a text: the files of sentence-transformers.

`modules.json` lists the modules (encoder, pooling, linear layers, a normalisation),
`1_Pooling/config.json` states the pooling, `2_Dense` holds a linear layer, and
`sentence_bert_config.json` states the longest text.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from etils import epath

from jaxformers.errors import WeightsError, printable
from jaxformers.layers import Activation
from jaxformers.pretrained.formats.safetensors_folder import (
    CONFIG,
    OLD_PLACE,
    PICKLES,
    WEIGHTS,
    TensorFile,
    read_json,
    require_regular,
)

MODULES, OVERALL = "modules.json", "config_sentence_transformers.json"
# The encoder's settings, by the name of its architecture; the first that exists is read.
ENCODERS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
Mode = Literal["cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]
# In the order in which vectors of several modes are joined.
MODES: dict[str, Mode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# Torch's classes of activations -> ours.
ACTIVATIONS: dict[str, Activation | None] = {
    "Identity": None,
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}
LARGEST_FILE = 1 << 20  # bytes


@dataclass(frozen=True, eq=False)
class Dense:
    """A linear layer over the pooled vector, and its activation."""

    kernel: np.ndarray
    """`[in, out]`."""
    bias: np.ndarray | None
    """`[out]`; None: there is none."""
    activation: Activation | None
    """None: the identity."""


@dataclass(frozen=True)
class Pooling:
    """From the states of a text's tokens, special ones included, to its vector."""

    modes: tuple[Mode, ...] = ("mean",)
    """The first token, the greatest of each feature, the mean, the sum over the root of the number
    of tokens, the mean weighted by position (1, 2, ...), or the last token; of several the vectors
    are joined."""
    normalize: bool = False
    """Whether vectors are brought to length 1, behind all layers."""
    max_length: int | None = None
    """Tokens that a longer text is cut to; None: the model's positions."""
    lowercase: bool = False
    """Whether texts are put into small letters before the tokenizer sees them."""
    prompt: str = ""
    """What is put before every text."""
    dense: tuple[Dense, ...] = ()
    """Linear layers over the pooled vector, first to last."""


def read_pooling(folder: Any) -> Pooling:
    """The pooling of a folder; the plain mean where its files say nothing.

    Raises:
        WeightsError: a damaged file, or a module that is not supported; one line.
    """
    folder = _root(folder)
    if not (folder / MODULES).exists():
        return Pooling()
    modules = _modules(folder / MODULES)
    kinds = [kind for kind, _ in modules]
    layers = kinds[2:-1] if kinds[-1:] == ["Normalize"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or set(layers) - {"Dense"}:
        raise WeightsError(
            f"{folder / MODULES}: the modules {', '.join(kinds)} are not supported, only "
            "Transformer, Pooling and then perhaps Dense ones and Normalize"
        )
    modes, with_prompt = _modes(folder / modules[1][1] / CONFIG)
    max_length, lowercase = _encoder(folder / modules[0][1])
    prompt = _prompt(folder / OVERALL)
    if prompt and not with_prompt:
        raise WeightsError(f"{folder}: pooling without the prompt's tokens is not supported")
    dense = tuple(_dense(folder / path) for kind, path in modules if kind == "Dense")
    return Pooling(modes, "Normalize" in kinds, max_length, lowercase, prompt, dense)


def sentence_files(folder: Any) -> dict[str, bytes]:
    """Contents of the files that state a folder's pooling, by the paths of an exported folder.

    There the encoder's own files lie at the top. Nothing where no file states a pooling.

    Raises:
        WeightsError: as `read_pooling`; an export would lose what is not supported.
    """
    folder = _root(folder)
    if not (folder / MODULES).exists():
        return {}
    try:
        read_pooling(folder)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; give load_text(folder) as the tokenizer to leave it out"
        ) from None
    listed = json.loads((folder / MODULES).read_bytes())
    encoder = folder / listed[0]["path"]
    paths = {OVERALL: folder / OVERALL} | {name: encoder / name for name in ENCODERS}
    for module in listed[1:]:
        paths |= {f"{module['path']}/{n}": folder / module["path"] / n for n in (CONFIG, WEIGHTS)}
    files = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    listed[0]["path"] = ""
    return {MODULES: json.dumps(listed, indent=2).encode()} | files


def _root(folder: Any) -> epath.Path:
    """The folder of `modules.json`: that above the encoder's in folders from before 2021."""
    folder = epath.Path(folder)
    old = folder.name == OLD_PLACE and not (folder / MODULES).exists()
    return folder.parent if old else folder


def _modules(file: epath.Path) -> list[tuple[str, str]]:
    """The kind and the folder of each module."""
    require_regular(file)
    try:
        if file.stat().length > LARGEST_FILE:
            raise ValueError
        modules = json.loads(file.read_bytes())
        kinds_and_paths = [
            (module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WeightsError(f"{file} is damaged: it must list modules with type and path") from None
    for _, path in kinds_and_paths:
        if not isinstance(path, str) or not re.fullmatch(r"(\w[\w.-]*)?", path):
            quoted = printable(repr(path))
            raise WeightsError(f"{file} names {quoted}, which is no folder beside it")
    return kinds_and_paths


def _modes(file: epath.Path) -> tuple[tuple[Mode, ...], bool]:
    """The modes, and whether a prompt's tokens count."""
    config = read_json(file)
    named = config.get("pooling_mode")  # newer files name the modes
    named = [named] if isinstance(named, str) else named
    if named is None:
        on = [key for key in config if key.startswith("pooling_mode_") and config[key] is True]
        named = [MODES.get(key, key) for key in sorted(on, key=[*MODES, *on].index)]
    texts = isinstance(named, list) and named and all(isinstance(name, str) for name in named)
    modes = tuple(MODES.get(f"pooling_mode_{name}", name) for name in named) if texts else ()
    if not modes or not set(modes) <= set(MODES.values()):
        raise WeightsError(
            f"{file}: the pooling {named!r} is not supported, only {', '.join(MODES.values())}"
        )
    return modes, config.get("include_prompt", True) is True


def _dense(folder: epath.Path) -> Dense:
    """The linear layer of a folder."""
    file = folder / CONFIG
    config = read_json(file)
    named = config.get("activation_function", "Tanh")  # the default there
    name = named.rsplit(".", 1)[-1] if isinstance(named, str) else ""
    if name not in ACTIVATIONS:
        raise WeightsError(
            f"{file}: activation_function is {named!r}, none of {', '.join(ACTIVATIONS)}"
        )
    for field in ("module_input_name", "module_output_name"):
        if config.get(field) not in (None, "sentence_embedding"):
            raise WeightsError(f"{file}: {field} is {config[field]!r}, not 'sentence_embedding'")
    if not (folder / WEIGHTS).exists():
        pickles = [name for name in PICKLES if (folder / name).exists()]
        mend = f"; {pickles[0]} is a pickle: torch_to_safetensors rewrites it" if pickles else ""
        raise WeightsError(f"{folder} lacks {WEIGHTS}{mend}")
    tensors = TensorFile(folder / WEIGHTS, str(folder / WEIGHTS))
    bias = config.get("bias", True) is True
    width = (config.get("in_features"), config.get("out_features"))
    expected = {"linear.weight": width[::-1]} | ({"linear.bias": width[1:]} if bias else {})
    if dict(tensors.shapes) != expected:
        raise WeightsError(
            f"{tensors.place} holds {dict(tensors.shapes)}; its {CONFIG} states {expected}"
        )
    kernel = tensors.read("linear.weight").T
    return Dense(kernel, tensors.read("linear.bias") if bias else None, ACTIVATIONS[name])


def _encoder(folder: epath.Path) -> tuple[int | None, bool]:
    """The longest text in tokens, and whether it is put into small letters."""
    files = (folder / name for name in ENCODERS)
    path = next((file for file in files if file.exists()), None)
    config = read_json(path) if path else {}
    limit = config.get("max_seq_length")
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
