"""BERT as Google released it: a TensorFlow checkpoint beside `bert_config.json`, and `vocab.txt`.

A folder holds `NAME.index` and `NAME.data-00000-of-00001`. What an optimizer kept is left aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
from etils import epath

from jaxformers.errors import WeightsError, folder_contents
from jaxformers.layers import Execution
from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
)
from jaxformers.pretrained.bert.bert_config import read_config
from jaxformers.pretrained.formats import safetensors_folder
from jaxformers.pretrained.formats.tf_checkpoint import INDEX, TensorBundle
from jaxformers.pretrained.mapping.name_map import Entry, NameMap, listed
from jaxformers.pretrained.mapping.transforms import Flat, Joined, Linear, Shape
from jaxformers.pretrained.model_variables import (
    DEFAULT_EXECUTION,
    read_model,
)
from jaxformers.text import Tokenizer, holds_tokenizer
from jaxformers.text import load_tokenizer as load_text_tokenizer

RELEASED = "bert_model.ckpt"
CLASSES, SPANS, WORDS = "output_weights", "cls/squad/output_weights", "cls/predictions/output_bias"
POOLER, SENTENCE = "bert/pooler/dense/kernel", "cls/seq_relationship/output_weights"
OPTIMIZER = (r".*/adam_[mv]", "global_step")
LAYER, OURS = "encoder/layer_{layer}", "encoder/blocks"


def _dense(theirs: str, ours: str, inputs: int = 1) -> tuple[Entry, ...]:
    return (
        Entry(f"{theirs}/kernel", f"{ours}/kernel", Joined(inputs)),
        Entry(f"{theirs}/bias", f"{ours}/bias", Flat()),
    )


def _norm(theirs: str, ours: str) -> tuple[Entry, ...]:
    names = f"{theirs}/LayerNorm"
    return Entry(f"{names}/gamma", f"{ours}/scale"), Entry(f"{names}/beta", f"{ours}/bias")


def _output(theirs: str, ours: str) -> tuple[Entry, ...]:
    """A head's last layer, whose weights `[out, in]` stand the other way round."""
    return (
        Entry(f"{theirs}output_weights", f"{ours}/kernel", Linear()),
        Entry(f"{theirs}output_bias", f"{ours}/bias"),
    )


ENCODER: tuple[Entry, ...] = (
    Entry("embeddings/word_embeddings", "token_embedding/table"),
    Entry("embeddings/position_embeddings", "position_embedding/table"),
    Entry("embeddings/token_type_embeddings", "type_embedding/table"),
    *_norm("embeddings", "embedding_norm"),
    *_dense(f"{LAYER}/attention/self/query", f"{OURS}/self_attention/query"),
    *_dense(f"{LAYER}/attention/self/key", f"{OURS}/self_attention/key"),
    *_dense(f"{LAYER}/attention/self/value", f"{OURS}/self_attention/value"),
    *_dense(f"{LAYER}/attention/output/dense", f"{OURS}/self_attention/out", inputs=2),
    *_norm(f"{LAYER}/attention/output", f"{OURS}/self_attention_norm"),
    *_dense(f"{LAYER}/intermediate/dense", f"{OURS}/feed_forward/up"),
    *_dense(f"{LAYER}/output/dense", f"{OURS}/feed_forward/down"),
    *_norm(f"{LAYER}/output", f"{OURS}/feed_forward_norm"),
    *_dense("pooler/dense", "pooler"),
)
HEADS: tuple[Entry, ...] = (
    *_dense("cls/predictions/transform/dense", "transform"),
    *_norm("cls/predictions/transform", "transform_norm"),
    Entry(WORDS, "logits_bias"),
    *_output("cls/seq_relationship/", "next_sentence"),
    *_output("", "classifier"),
    *_output("cls/squad/", "spans"),
)


def name_map(module: type[nn.Module]) -> NameMap:
    """The names of a checkpoint under this head."""
    ours = "params/" if module is Bert else "params/bert/"
    # Google's code makes the pooler under a span head too, where nothing trains it.
    pooler = (r"bert/pooler/.*",) if module is BertForSpanExtraction else ()
    return NameMap(
        (
            *(entry.under("bert/", ours) for entry in ENCODER),
            *(entry.under("", "params/") for entry in HEADS),
        ),
        ignored=(*OPTIMIZER, *pooler),
    )


def recognises(path: epath.Path) -> bool:
    """Whether a folder is one of Google's: its configuration, and none of Hugging Face's."""
    return (path / safetensors_folder.GOOGLE_CONFIG).exists() and not (
        path / safetensors_folder.CONFIG
    ).exists()


def load(path: Any, execution: Execution = DEFAULT_EXECUTION) -> tuple[nn.Module, dict[str, Any]]:
    """The model in the folder, and its variables as `execution` stores them.

    Raises:
        WeightsError: no checkpoint or several, a damaged one, or tensors that do not fit; one line.
    """
    path = epath.Path(path)
    config_path = path / safetensors_folder.GOOGLE_CONFIG
    config = read_config(safetensors_folder.read_json(config_path), str(config_path))
    tensors = TensorBundle(_index(path))
    module, config = _module(tensors.shapes, config)
    model = module(config, execution)
    return read_model(model, name_map(module), tensors)


def load_tokenizer(path: epath.Path) -> Tokenizer | None:
    """The folder's tokenizer, if it has one: to be saved with rules that Hugging Face's files would
    otherwise be taken to change."""
    return load_text_tokenizer(path) if holds_tokenizer(path) else None


def _index(path: epath.Path) -> epath.Path:
    """The folder's one checkpoint; the released one, if there are others beside it."""
    if (path / f"{RELEASED}{INDEX}").exists():
        return path / f"{RELEASED}{INDEX}"
    names = sorted(file.name for file in path.glob(f"*{INDEX}"))
    if len(names) > 1:
        raise WeightsError(f"{path} holds several checkpoints ({listed(names)}): keep one of them")
    if names:
        return path / names[0]
    if old := sorted(file.name for file in path.glob("*.ckpt")):
        raise WeightsError(
            f"{path / old[0]} has no {INDEX} beside it: it is incomplete, or of TensorFlow's first "
            "format, which is not supported"
        )
    raise WeightsError(
        f"{path} holds no TensorFlow checkpoint: {RELEASED}{INDEX} is missing; "
        f"{folder_contents(path)}"
    )


def _module(shapes: Mapping[str, Shape], config: BertConfig) -> tuple[type[nn.Module], BertConfig]:
    """The module that has the checkpoint's head, and its configuration."""
    config = replace(config, pooler=POOLER in shapes, next_sentence=SENTENCE in shapes)
    if SPANS in shapes:
        return BertForSpanExtraction, config
    if len(shapes.get(CLASSES, ())) == 2:
        return BertForSequenceClassification, replace(config, labels=shapes[CLASSES][0])
    return (BertForPreTraining if WORDS in shapes else Bert), config
