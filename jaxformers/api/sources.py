"""What the functions of this room work with: a path, a hub's name, a run, or a model in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from etils import epath

from jaxformers.api.file_cache import FileCache, local_path
from jaxformers.api.loading import from_pretrained, load_images, load_text
from jaxformers.data.images import Preprocessing
from jaxformers.errors import ConfigError, WeightsError
from jaxformers.models import UnifiedIO
from jaxformers.models.clip import CLIP, CLIPImageTower, CLIPTextTower
from jaxformers.pretrained import resolve
from jaxformers.pretrained.bert.sentence_pooling import Pooling, read_pooling
from jaxformers.pretrained.clip.clip_family import published_preprocessing
from jaxformers.pretrained.model_variables import check_variables
from jaxformers.pretrained.preprocessing.processor_file import (
    states_open_clip,
    states_preprocessing,
)
from jaxformers.tasks.image_text.contrastive import OPENAI_VOCABULARY
from jaxformers.tasks.processor import Processor
from jaxformers.tasks.text.text_inference import check_head, check_tokenizer
from jaxformers.text import CLIPTokenizer, Tokenizer, holds_tokenizer
from jaxformers.training.run_directory import is_run

Variables = Mapping[str, Any]
TextSource: TypeAlias = epath.PathLike | tuple[Any, Variables, Tokenizer | Processor]
"""A path or name as for `from_pretrained`, or `(model, variables, tokenizer)`."""
ImageSource: TypeAlias = epath.PathLike | tuple[Any, Variables, Preprocessing | Processor]
"""A path or name as for `from_pretrained`, or `(model, variables, preprocessing)`."""
ImageTextSource: TypeAlias = epath.PathLike | tuple[Any, Variables, Processor]
"""A path or name as for `from_pretrained`, or `(model, variables, processor)`."""

# They look up `from_pretrained` and `load_text` when they are called, for tests to replace these.
_models = FileCache(lambda path: from_pretrained(path))
_tokenizers = FileCache(lambda path: load_text(path))
_poolings = FileCache(lambda path: Pooling() if is_run(path) else read_pooling(resolve(path)))


def text_model(use: str, source: TextSource) -> tuple[Any, Variables, Tokenizer]:
    """Model, variables and tokenizer for a use such as "classify", checked against each other.

    Raises:
        ConfigError: neither a path nor three things in memory.
        WeightsError: a model without the head, or a tokenizer that is not that of the weights.
    """
    model, variables = model_of(source)
    check_head(use, model, name_of(source))
    tokenizer = tokenizer_of(source, model)
    check_tokenizer(model, tokenizer, name_of(source))
    return model, variables, tokenizer


def tokenizer_of(source: TextSource, model: Any) -> Any:
    """The tokenizer of a folder or run, or the one beside a model in memory."""
    if not _is_path(source):
        return source[2].tokenizer if isinstance(source[2], Processor) else source[2]
    if isinstance(model, UnifiedIO) and not is_run(source):
        path = local_path(source)
        if path.is_file():  # a published file of weights; the tokenizer lies beside it
            return _tokenizers.get(path.parent)
    if isinstance(model, CLIP | CLIPTextTower) and not is_run(source):
        path = local_path(source)
        folder = path if path.is_dir() else path.parent
        openai = model.config.vocab_size == OPENAI_VOCABULARY
        # open_clip reads with OpenAI's, whatever files for transformers lie beside its own.
        if holds_tokenizer(folder) and not (openai and states_open_clip(folder)):
            return _tokenizers.get(folder)
        if openai:
            return CLIPTokenizer()
    return _tokenizers.get(source)


def model_of(source: TextSource | ImageSource | ImageTextSource) -> tuple[Any, Variables]:
    """The model and its variables."""
    if _is_path(source):
        return _models.get(source)
    if not isinstance(source, tuple | list) or len(source) != 3:
        raise ConfigError(
            "the model is neither a path nor (model, variables, tokenizer), or for images "
            f"(model, variables, preprocessing): it is a {type(source).__name__}"
        )
    model, variables, _ = source
    check_variables(model, variables)
    return model, variables


def preprocessing_of(source: ImageSource, model: Any) -> Preprocessing:
    """The preprocessing of a model of images; CLIP's own where its folder states none."""
    if _is_path(source):
        published = None
        if isinstance(model, CLIP | CLIPImageTower) and not _states_preprocessing(source):
            published = published_preprocessing(model.config)
        return load_images(source) if published is None else published
    value = source[2].preprocessing if isinstance(source[2], Processor) else source[2]
    if not isinstance(value, Preprocessing):
        raise WeightsError(
            f"(model, variables, preprocessing) holds a {type(source[2]).__name__}; give a "
            "Preprocessing, such as load_images(path)"
        )
    return value


def _states_preprocessing(source: epath.PathLike) -> bool:
    path = local_path(source)
    folders = (path, path / "model") if path.is_dir() else (path.parent,)
    return any(map(states_preprocessing, folders))


def pooling_of(source: TextSource) -> Pooling:
    """What the folder states of its sentence embeddings; the plain mean for a model in memory."""
    return _poolings.get(source) if _is_path(source) else Pooling()


def name_of(source: TextSource | ImageSource | ImageTextSource) -> str:
    """What messages call the source."""
    return str(source) if _is_path(source) else "the model in memory"


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)
