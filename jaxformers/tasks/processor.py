"""`Processor`: the tokenizer and the image preprocessing that belong to a model."""

from __future__ import annotations

from dataclasses import dataclass

from etils import epath

from jaxformers.data.images import Preprocessing
from jaxformers.pretrained.preprocessing.preprocessor_config import (
    read_preprocessing,
    write_preprocessing,
)
from jaxformers.pretrained.preprocessing.processor_file import states_preprocessing
from jaxformers.text import Tokenizer, load_tokenizer

TOKENIZER = "tokenizer"  # folder of a run's tokenizer


@dataclass(frozen=True)
class Processor:
    """Turns raw texts and images into the arrays that a model reads; either part may be None."""

    tokenizer: Tokenizer | None = None
    preprocessing: Preprocessing | None = None

    def save(self, folder: epath.PathLike) -> None:
        """Writes the tokenizer's files and `preprocessor_config.json` into `folder`."""
        if self.tokenizer is not None:
            self.tokenizer.save(folder)
        if self.preprocessing is not None:
            write_preprocessing(self.preprocessing, folder)


def load_processor(folder: epath.PathLike) -> Processor:
    """Loads the processor of a run: `tokenizer/` and `preprocessor_config.json`, where they exist.

    Raises:
        UserError: `tokenizer/` holds no tokenizer, or the preprocessing is not supported.
    """
    folder = epath.Path(folder)
    tokenizer = folder / TOKENIZER
    configs = [path for path in (folder, folder / "model") if states_preprocessing(path)]
    return Processor(
        load_tokenizer(tokenizer) if tokenizer.exists() else None,
        read_preprocessing(configs[0]) if configs else None,
    )
