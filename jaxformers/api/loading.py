"""Models, tokenizers and image preprocessing from published weights and from runs."""

from __future__ import annotations

from typing import Any

from etils import epath

from jaxformers.data.images import Preprocessing
from jaxformers.layers import Execution
from jaxformers.pretrained import at_image_size, load_pretrained
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.formats.safetensors_folder import WEIGHTS
from jaxformers.pretrained.formats.single_file import is_single_file
from jaxformers.pretrained.preprocessing.preprocessor_config import read_preprocessing
from jaxformers.pretrained.preprocessing.processor_file import states_preprocessing
from jaxformers.pretrained.preprocessing.single_file import file_preprocessing, timm_fields
from jaxformers.text import Tokenizer, holds_tokenizer, load_tokenizer
from jaxformers.training.run_directory import is_run, load_run, tokenizer_folder


def from_pretrained(
    path: epath.PathLike,
    execution: Execution | None = None,
    *,
    image_size: int | tuple[int, int] | None = None,
    weights: str | None = None,
) -> tuple[Any, dict]:
    """The model and its variables from a published folder, a hub name, or a run of ours.

    Args:
        path: a folder with `config.json` and weights, of any family and format that
            docs/published_weights.md lists, our own included; one of Google's TensorFlow
            checkpoints of BERT with its `bert_config.json`; a single file of weights (Google's
            `.npz`, `.safetensors` with torchvision's or timm's names, Unified-IO's `.bin`); a run's
            folder (its final weights, or its newest good checkpoint); or "org/name".
        execution: compute type and the like; the weights stay float32.
        image_size: side, or height and width, of the images that a model is to take, its positions
            resized as their publisher does; None: that of the weights.
        weights: which of several sets of weights in a file of a training run, such as "model_ema";
            None: the file holds one.

    Returns:
        `(model, variables)` for `model.apply(variables, ...)`.

    Raises:
        WeightsError: missing, unexpected or misshapen tensors, a damaged or unsupported file.
        CheckpointError: a run without a usable checkpoint.

    Example:
        >>> model, variables = jf.from_pretrained("google/vit-base-patch16-224")
        >>> images = jf.load_images("google/vit-base-patch16-224")("photo.png")  # [1, H, W, 3]
        >>> model.apply(variables, images).shape == (1, model.config.classes)
        True
    """
    execution = execution or Execution()
    if weights is not None or not is_run(path):
        return load_pretrained(path, execution, image_size=image_size, weights=weights)
    loaded = load_run(path, execution)
    return loaded if image_size is None else at_image_size(*loaded, image_size)


def load_text(path: epath.PathLike) -> Tokenizer:
    """The tokenizer of a folder, a hub's name, or a run.

    Args:
        path: a folder with the files of a tokenizer (`docs/published_weights.md` lists them), with
            or without weights; a run's folder, or "org/name".

    Returns:
        `encode` and `decode` take one text or row, or several, and return lists.

    Raises:
        UserError: no tokenizer, or one whose files are damaged or state what is not supported.

    Example:
        >>> tokenizer = jf.load_text("google-bert/bert-base-uncased")
        >>> tokenizer.decode(tokenizer.encode("a red heart"))
        ['a red heart']
    """
    if is_run(path):
        return load_tokenizer(tokenizer_folder(path))
    folder = epath.Path(path).expanduser()
    return load_tokenizer(folder if holds_tokenizer(folder) else resolve(path))


def load_images(path: epath.PathLike, *, weights: str | None = None) -> Preprocessing:
    """The preprocessing of pictures that belongs to published weights or a run.

    Args:
        path: a folder with `preprocessor_config.json` or `processor_config.json`, a run's folder,
            a hub's name, or a single file of weights, which goes by what lies beside it or by
            its publisher.
        weights: which of several sets of weights in the file, as for `from_pretrained`.

    Returns:
        `preprocessing(pictures)` gives the float32 `[B, H, W, C]` that the model reads.

    Raises:
        WeightsError: no such file, or one that asks for what is not supported.

    Example:
        >>> jf.load_images("google/vit-base-patch16-224")(["photo.png", "photo.png"]).shape
        (2, ...)
    """
    if is_single_file(path):
        return file_preprocessing(path, weights)
    folder = epath.Path(path).expanduser()
    # A run that is not finished has no model's folder yet.
    folders = [source for source in (folder, folder / "model") if states_preprocessing(source)]
    source = folders[0] if folders else resolve(path)
    if not folders and timm_fields(source) is not None:
        return file_preprocessing(source / WEIGHTS)
    return read_preprocessing(source)
