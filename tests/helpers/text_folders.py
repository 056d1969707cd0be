"""Folders of small models with their tokenizers, one for each family of text models."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import marian_folders

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import marian_cases as cases

TOKENIZER = cases.FIXTURES / "marian_tokenizer"
TOKENS = len(json.loads((TOKENIZER / "vocab.json").read_text()))
TOKENIZER_FILES = ("source.spm", "target.spm", "vocab.json")


def marian(folder: Path, seed: int = 0, generation: dict | None = None, **changes) -> Path:
    """A random MarianMT with a tokenizer of 671 tokens; `changes` are of its config.json."""
    config = cases.config(vocab_size=TOKENS, encoder_layers=1) | changes
    files = {} if generation is None else {"generation_config": generation}
    marian_folders.write(folder, config, cases.weights(config, seed), **files)
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER / name, folder / name)
    return folder
