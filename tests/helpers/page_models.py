"""Small random models of every kind that the page serves, in folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import clip_use
import text_folders

import jaxformers as jf
from jaxformers.data.captions import BundledEmoji
from jaxformers.data.images import Preprocessing
from jaxformers.models import (
    Bert,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForSpanExtraction,
    BertForTokenClassification,
    ViT,
    ViTConfig,
)
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.text import WordPiece
from tests.helpers import unified_io

SHAPE = dict(width=16, heads=2, feed_forward=32, layers=2, max_length=64, vocab_size=400)
BERTS = {
    "masks": (BertForPreTraining, {}),
    "sentiment": (BertForSequenceClassification, dict(labels=2, label_names=("bad", "good"))),
    "answers": (BertForSpanExtraction, {}),
    "tags": (BertForTokenClassification, dict(labels=3, label_names=("O", "B-PER", "I-PER"))),
    "encoder": (Bert, {}),
}


def write_models(folder: Path) -> dict[str, str]:
    """Writes the models below a folder, and a folder `pictures`; paths by their names."""
    images = BundledEmoji(("fluent",)).open()
    texts = [text for index in range(len(images)) for text in images.captions(index)]
    tokenizer = WordPiece.train(texts, SHAPE["vocab_size"])
    for name, (module, fields) in BERTS.items():
        model = module(BertConfig(**SHAPE, **fields))
        ids = np.ones((1, 8), np.int32)
        variables = random_variables(model, ids)
        jf.save_pretrained(model, variables, folder / name, tokenizer=tokenizer)
    model = ViT(
        ViTConfig(
            16, 4, width=16, heads=2, feed_forward=32, layers=2, classes=3,
            class_names=("cat", "dog", "<b>bird</b>"),
        )
    )  # fmt: skip
    variables = random_variables(model, np.zeros((1, 16, 16, 3), np.float32))
    jf.save_pretrained(model, variables, folder / "vit")
    write_preprocessing(Preprocessing(16), folder / "vit")
    text_folders.marian(folder / "translation")
    clip_use.folder(folder / "clip")
    model, variables, processor = unified_io.source()
    tokenizer = processor.tokenizer
    jf.save_pretrained(model, variables, folder / "unified_io", tokenizer=tokenizer)
    (folder / "pictures").mkdir()
    for index in range(0, len(images), 150):
        images.image(index).save(folder / "pictures" / f"{index}.png")
    names = (*BERTS, "vit", "translation", "clip", "unified_io", "pictures")
    return {name: str(folder / name) for name in names}


def random_variables(model, *inputs):
    """Variables with entries N(0, 0.1), so that answers differ."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)


if __name__ == "__main__":
    print(json.dumps(write_models(Path(sys.argv[1]))))
