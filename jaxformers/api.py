"""What a notebook calls: published weights and our own runs, in and out, and used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from etils import epath

from jaxformers.data.images import Preprocessing
from jaxformers.data.images.preprocessing import one_by_one
from jaxformers.errors import ConfigError, check_top
from jaxformers.layers import Execution
from jaxformers.pretrained import at_image_size, load_pretrained, save_pretrained
from jaxformers.pretrained.bert.sentence_pooling import MODES, Pooling, read_pooling
from jaxformers.pretrained.formats.hub import resolve
from jaxformers.pretrained.formats.safetensors_folder import WEIGHTS
from jaxformers.pretrained.formats.single_file import is_single_file
from jaxformers.pretrained.preprocessing.preprocessor_config import read_preprocessing
from jaxformers.pretrained.preprocessing.processor_file import states_preprocessing
from jaxformers.pretrained.preprocessing.single_file import file_preprocessing, timm_fields
from jaxformers.tasks.images import image_inference
from jaxformers.tasks.text import embedding, text_inference
from jaxformers.tasks.text.fill_mask import fill_mask as filled
from jaxformers.tasks.text.span_answers import Answer
from jaxformers.tasks.translation.translation import Search
from jaxformers.tasks.translation.translation_evaluation import translate as translate_texts
from jaxformers.text import Tokenizer, listed_texts, load_tokenizer
from jaxformers.training.run_directory import is_run, load_run, tokenizer_folder

if TYPE_CHECKING:
    import numpy as np

    from jaxformers.interpret import ExplainedPicture

__all__ = [
    "answer",
    "classify",
    "classify_images",
    "embed",
    "explain",
    "fill_mask",
    "from_pretrained",
    "load_images",
    "load_text",
    "save_pretrained",
    "translate",
]

Texts = str | Sequence[str]


def from_pretrained(
    path: epath.PathLike,
    execution: Execution | None = None,
    *,
    image_size: int | None = None,
    weights: str | None = None,
) -> tuple[Any, dict]:
    """The model and its variables from a published folder, a hub name, or a run of ours.

    Args:
        path: a folder with `config.json` and `model.safetensors` (MarianMT, BERT, BiT, ResNet,
            ViT, ViTMAE, or our own format), one of Google's TensorFlow checkpoints of BERT with its
            `bert_config.json`, a single file of image weights (Google's `.npz`,
            torchvision's or timm's names in `.safetensors`), a run's folder (its final weights, or
            its newest good checkpoint), or "org/name".
        execution: compute type and the like; the weights stay float32.
        image_size: side of the square images that an image model is to take, its positions
            resized as their publisher does; None: that of the weights.
        weights: which of several sets of weights in a file of a training run, such as "model_ema";
            None: the file holds one.

    Returns:
        `(model, variables)` for `model.apply(variables, ...)`.

    Raises:
        WeightsError: missing, unexpected or misshapen tensors, a damaged or unsupported file.
        CheckpointError: a run without a usable checkpoint.
    """
    execution = execution or Execution()
    if weights is not None or not is_run(path):
        return load_pretrained(path, execution, image_size=image_size, weights=weights)
    loaded = load_run(path, execution)
    return loaded if image_size is None else at_image_size(*loaded, image_size)


def load_text(path: epath.PathLike) -> Tokenizer:
    """The tokenizer that belongs to a published folder, a hub's name, or a run."""
    return load_tokenizer(tokenizer_folder(path) if is_run(path) else resolve(path))


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


def translate(
    run_or_path: epath.PathLike, sentences: Texts, *, beams: int = 4, alpha: float = 0.6
) -> list[str]:
    """Translations of `sentences` by a run of ours or a published folder, in their order.

    Args:
        run_or_path: as for `from_pretrained`; it is kept loaded for the next call.
        sentences: an empty one stays empty.
        beams: width of the beam search; 1 is greedy.
        alpha: of the length penalty.

    Raises:
        DataError: a sentence with more tokens than the model has positions.
        WeightsError: a model that does not translate.
    """
    return translate_texts(
        *_loaded("translate", run_or_path), listed_texts(sentences), Search(beams, alpha)
    )


def fill_mask(
    run_or_path: epath.PathLike, texts: Texts, *, top: int = 5
) -> list[list[list[tuple[str, float]]]]:
    """The likeliest words for each "[MASK]" in `texts`.

    Args:
        run_or_path: a pre-trained BERT, as for `from_pretrained`; kept loaded for the next call.
        texts: with any number of [MASK] each.
        top: how many words for a place.

    Returns:
        For each text, for each of its [MASK], (token, probability), the best first. A token that
        goes on with a word begins with "##".

    Raises:
        DataError: a text with more tokens than the model has positions.
        WeightsError: a model without a masked-word head.
    """
    check_top(top)
    return filled(*_loaded("fill_mask", run_or_path), listed_texts(texts), top=top)


def classify(
    run_or_path: epath.PathLike,
    texts_or_pairs: str | Sequence[str | tuple[str, str]],
    *,
    truncate: bool = False,
) -> list[tuple[str, float]]:
    """The likeliest class of each text or pair of texts, and its probability.

    Args:
        run_or_path: a BERT with a classifier, as for `from_pretrained`; kept loaded for the next
            call.
        texts_or_pairs: texts, or (text, second text).
        truncate: whether what is longer than the model's positions is cut, the longer text of a
            pair first.

    Returns:
        (label, probability) of each; of a regression ("score", number).

    Raises:
        DataError: a text with more tokens than the model has positions, unless `truncate`.
        WeightsError: a model without a classifier.
    """
    texts = [texts_or_pairs] if isinstance(texts_or_pairs, str) else texts_or_pairs
    return text_inference.classify(*_loaded("classify", run_or_path), texts, truncate=truncate)


def answer(
    run_or_path: epath.PathLike,
    questions: Texts,
    contexts: Texts,
    *,
    longest: int = 30,
    null_threshold: float | None = None,
) -> list[Answer]:
    """The answer to each question as a span of its context.

    Args:
        run_or_path: a BERT that was trained to answer, as for `from_pretrained`; kept loaded for
            the next call.
        questions: one for each context.
        contexts: of any length; a single text is the context of all questions.
        longest: most pieces of an answer.
        null_threshold: "no answer" (an empty text) where its score exceeds the best span's by more
            than this, for models trained on SQuAD 2.0; None: always a span.

    Returns:
        (text, score, start, end) of each: the sum of two logits, and the span in characters.

    Raises:
        DataError: another number of questions than of contexts.
        WeightsError: a model without a head for answers.
    """
    if longest < 1:
        raise ConfigError(f"longest is {longest}; it is at least 1")
    loaded, questions = _loaded("answer", run_or_path), listed_texts(questions)
    contexts = [contexts] * len(questions) if isinstance(contexts, str) else listed_texts(contexts)
    options = dict(longest=longest, null_threshold=null_threshold)
    return text_inference.answer(*loaded, questions, contexts, **options)


def embed(
    run_or_path: epath.PathLike,
    texts: Texts,
    *,
    pooling: str | None = None,
    normalize: bool | None = None,
) -> np.ndarray:
    """A vector for each text, float32 `[n, D]`, in their order.

    Args:
        run_or_path: any BERT, as for `from_pretrained`; kept loaded for the next call.
        texts: a longer one than the folder's `max_seq_length`, or than the model's positions, is
            cut at its end, as sentence-transformers does. Words are cut by Google's rules: a
            special token's name in a text, such as "[SEP]", is text, which Hugging Face's
            tokenizers take for the token; a Greek capital sigma that ends a word becomes a final
            one, where theirs write another.
        pooling: "mean", "cls", "max" or "mean_sqrt_len"; None: as the folder's files say (those of
            sentence-transformers), else the mean over all tokens.
        normalize: whether vectors get length 1; None: as the folder's files say, else not.

    Raises:
        ConfigError: an unknown pooling.
        WeightsError: a model that is no BERT, or a part of the folder that is not supported.
    """
    loaded, how = _loaded("embed", run_or_path), _pooling(str(run_or_path))
    if pooling is not None:
        if pooling not in MODES.values():
            raise ConfigError(f"no pooling {pooling!r}: choose {', '.join(MODES.values())}")
        how = replace(how, modes=(pooling,))
    if normalize is not None:
        how = replace(how, normalize=normalize)
    return embedding.embed(*loaded, listed_texts(texts), how)


def explain(
    run_or_path: epath.PathLike,
    image: Any,
    method: str = "attribution",
    *,
    top: int = 3,
    start_layer: int = 0,
) -> ExplainedPicture:
    """Where in a picture a ViT sees its likeliest classes; `.figure()` draws the heat maps.

    Args:
        run_or_path: a ViT with a head, as for `from_pretrained`; kept loaded for the next call.
        image: a path, encoded bytes, a Pillow image or a uint8 array `[H, W, C]`.
        method: "attribution" (Chefer et al., CVPR 2021) or "generic" (ICCV 2021), which tell
            classes apart; "rollout" or "attention" (the last layer's), which do not.
        top: how many classes.
        start_layer: the first layer that counts.

    Raises:
        ConfigError: an unknown method, no such layer, or no class asked for.
        DataError: a picture that cannot be read.
        WeightsError: a model without patches or without a head.
    """
    from jaxformers.interpret import explain_picture  # matplotlib: only where it is needed

    loaded, preprocessing = _model(str(run_or_path)), load_images(run_or_path)
    choices = dict(top=top, start_layer=start_layer)
    return explain_picture(*loaded, preprocessing, image, method, **choices)


def classify_images(
    run_or_path: epath.PathLike, pictures: Any, *, top: int = 5
) -> list[list[tuple[str, float]]]:
    """The likeliest classes of each picture, (name, probability), the best first.

    Args:
        run_or_path: a ViT, ResNet or BiT with a head, as for `from_pretrained`; kept loaded for
            the next call.
        pictures: one or several: paths, encoded bytes, Pillow images or uint8 arrays
            `[H, W, C]`, or a batch `[B, H, W, C]`; a folder's path stands for the pictures in it,
            in the order of their names.
        top: how many classes.

    Raises:
        ConfigError: no class asked for.
        DataError: a picture that cannot be read, or a folder without any.
        WeightsError: a model without a classifier of pictures.
    """
    check_top(top)
    model, variables = _model(str(run_or_path))
    image_inference.check_classifier(model, run_or_path)
    listed = one_by_one(pictures)
    paths = [
        picture for picture in listed if isinstance(picture, str) or hasattr(picture, "__fspath__")
    ]
    if len(paths) == len(listed):
        listed = image_inference.list_pictures(paths)
    preprocessing = load_images(run_or_path)
    return image_inference.classify_images(model, variables, preprocessing, listed, top=top)


def _loaded(use: str, path: epath.PathLike) -> tuple[Any, dict, Tokenizer]:
    """Model, variables and tokenizer, for a use that they are fit for."""
    model, variables = _model(str(path))
    text_inference.check_head(use, model, path)
    tokenizer = _tokenizer(str(path))
    text_inference.check_tokenizer(use, model, tokenizer, path)
    return model, variables, tokenizer


@lru_cache(maxsize=2)
def _model(path: str) -> tuple[Any, dict]:
    return from_pretrained(path)


@lru_cache(maxsize=2)
def _tokenizer(path: str) -> Tokenizer:
    return load_text(path)


@lru_cache(maxsize=2)
def _pooling(path: str) -> Pooling:
    return Pooling() if is_run(path) else read_pooling(resolve(path))
