"""What a model answers to the fields of the page, as plain values and figures.

Every function takes the path or name of a model, as `jf.from_pretrained` does, and what a person
typed or uploaded. Text is bounded, and is never taken for the path of a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxformers import api
from jaxformers.api import sources
from jaxformers.decoding.batching import length_step
from jaxformers.errors import DataError
from jaxformers.interpret import attention_maps, explain_text, text_figure
from jaxformers.tasks.image_text.image_index import default_folder, refresh, weights_fingerprint
from jaxformers.tasks.image_text.search import SearchResult, embed_readable, search_index
from jaxformers.tasks.text.bert_inputs import INPUTS, encode_pairs

MOST_CHARACTERS = 20_000
MOST_BYTES = 20 * 2**20  # of an uploaded picture
MOST_CLASSES, MOST_SENTENCES = 1_000, 40
HITS = 5


class Span(NamedTuple):
    """A stretch of a text, marked or not."""

    text: str
    mark: str | None


def translate(source: str, sentence: str) -> tuple[str, Figure | None]:
    """The translation of a sentence, and where the decoder looked while it wrote each token."""
    (translation,) = api.translate(source, _text(sentence))
    if not translation:
        return "", None
    model, variables, tokenizer = sources.text_model("translate", source)
    config = model.config
    (source_ids,), (target_ids,) = tokenizer.encode(sentence), tokenizer.encode_target(translation)
    limit = config.max_length
    source_ids = [*source_ids, tokenizer.eos_id][:limit]
    target_ids = [*target_ids, tokenizer.eos_id][:limit]
    inputs = (
        _padded(source_ids, config),
        _padded([config.start_id, *target_ids[:-1]], config),
    )
    mask = (np.arange(inputs[0].shape[1])[None] < len(source_ids)).astype(np.int32)
    maps = attention_maps(model, variables, *inputs, source_mask=mask)
    cross = np.asarray(maps.cross)[-1, 0]  # of the last layer, [H, T, S]
    mean = cross[:, : len(target_ids), : len(source_ids)].mean(0)
    labels = [
        [text or "(end)" for text in tokenizer.decode([[index] for index in ids])]
        for ids in (target_ids, source_ids)
    ]
    title = "attention of the last layer, mean over its heads"
    return translation, _matrix_figure(mean, *labels, title)


def _padded(ids: list[int], config) -> np.ndarray:
    """Ids of one text in one of few lengths, `[1, L]`."""
    padded = np.full((1, length_step(len(ids), config.max_length)), config.pad_id, np.int32)
    padded[0, : len(ids)] = ids
    return padded


def fill_masks(source: str, text: str, top: int) -> list[list[str]]:
    """Rows of (number of the mask, word, probability)."""
    (masks,) = api.fill_mask(source, _text(text), top=int(top))
    if not masks:
        raise DataError("the text has no [MASK] to fill")
    return [
        [str(number), word, f"{probability:.1%}"]
        for number, words in enumerate(masks, 1)
        for word, probability in words
    ]


def classify(source: str, first: str, second: str) -> tuple[dict[str, float], Figure]:
    """The classes of a text or a pair, and the relevance of its tokens for the likeliest."""
    texts = (_text(first), _text(second)) if second.strip() else (_text(first), "")
    api.classify(source, [texts if texts[1] else texts[0]])  # refuses what the model cannot read
    model, variables, tokenizer = sources.text_model("classify", source)
    encoded = [tokenizer.encode([text]) if text else [[]] for text in texts]
    limit = model.config.max_length
    length = length_step(min(sum(len(ids[0]) for ids in encoded) + 4, limit), limit)
    batch = encode_pairs(*encoded, tokenizer, length)
    classes = min(model.config.labels, 3)
    explanation = explain_text(
        model, variables, *(jnp.asarray(batch[name]) for name in INPUTS), top=classes
    )
    names = model.config.label_names or tuple(map(str, range(model.config.labels)))
    titles = [names[index] for index in np.asarray(explanation.classes)[0]]
    scores = np.asarray(explanation.probabilities)[0].tolist()
    ids = batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist()
    tokens = [tokenizer.vocabulary[index] for index in ids]
    rows = [
        (f"{title} {score:.1%}", tokens, relevance[: len(tokens)])
        for title, score, relevance in zip(titles, scores, explanation.relevance[0], strict=True)
    ]
    return dict(zip(titles, scores, strict=True)), text_figure(rows)


def answer(source: str, question: str, context: str) -> tuple[str, list[Span]]:
    """The answer to a question, and its context with the answer marked."""
    (best,) = api.answer(source, _text(question), _text(context))
    spans = [
        Span(context[: best.start], None),
        Span(context[best.start : best.end], "answer"),
        Span(context[best.end :], None),
    ]
    return best.text, [span for span in spans if span.text]


def tag(source: str, text: str) -> list[Span]:
    """A text with its entities marked."""
    (entities,) = api.tag(source, _text(text))
    spans, end = [], 0
    for entity in entities:
        spans += [
            Span(text[end : entity.start], None),
            Span(text[entity.start : entity.end], entity.label),
        ]
        end = entity.end
    return [span for span in (*spans, Span(text[end:], None)) if span.text]


def similarities(source: str, sentences: str) -> Figure:
    """The cosines between sentences, which stand one a line."""
    lines = _lines(sentences, "sentence", MOST_SENTENCES)
    vectors = api.embed(source, lines, normalize=True)
    return _matrix_figure(vectors @ vectors.T, lines, lines, "cosine")


def classify_picture(source: str, upload: str | None, top: int) -> dict[str, float]:
    """The classes of a picture."""
    (classes,) = api.classify_images(source, read_upload(upload), top=int(top))
    return dict(classes)


def explain_picture(source: str, upload: str | None, method: str, top: int) -> Figure:
    """Heat maps of the likeliest classes over a picture."""
    return api.explain(source, read_upload(upload), method, top=int(top)).figure()


def zero_shot(source: str, upload: str | None, names: str, template: str) -> dict[str, float]:
    """The classes of a picture by their names, one a line."""
    lines = _lines(names, "class", MOST_CLASSES)
    if len(set(lines)) < len(lines):
        raise DataError("a class comes twice: give each name once")
    (classes,) = api.zero_shot(source, read_upload(upload), lines, template=_text(template), top=10)
    return dict(classes)


def explain_match(source: str, upload: str | None, text: str) -> Figure:
    """Where in a picture, and in which words, the match of both rests."""
    return api.explain(source, read_upload(upload), text=read_line(text)).figure()


def find_pictures(source: str, query: str, folder: str) -> Figure:
    """The pictures of a folder that fit a text."""
    text = read_line(query)
    model, variables = sources.model_of(source)
    preprocessing = sources.preprocessing_of(source, model)
    vectors = api.embed(source, [text], normalize=True)
    fingerprint = weights_fingerprint(model, variables, preprocessing)
    entries = refresh(
        default_folder(folder, fingerprint),
        folder,
        fingerprint,
        lambda paths: embed_readable(model, variables, preprocessing, paths),
    )
    hits = search_index(entries, vectors, HITS)
    return SearchResult((text,), tuple(hits), len(entries.paths)).figure()


def _matrix_figure(
    matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """A matrix `[rows, columns]` with its labels and a colour bar."""
    figure = Figure(
        figsize=(3.5 + 0.3 * len(columns), 2.5 + 0.25 * len(rows)), layout="constrained"
    )
    axis = figure.subplots()
    mappable = axis.imshow(matrix, cmap="viridis", aspect="auto")
    for side, labels in ((axis.set_xticks, columns), (axis.set_yticks, rows)):
        texts = [label if len(label) <= 24 else f"{label[:22]}..." for label in labels]
        side(range(len(labels)), texts, fontsize=9, parse_math=False)
    axis.tick_params(axis="x", rotation=90)
    figure.colorbar(mappable).set_label(title)
    return figure


def _text(text: str | None) -> str:
    """What a person typed.

    Raises:
        DataError: nothing, or more than `MOST_CHARACTERS`.
    """
    if not text or not text.strip():
        raise DataError("a field is empty: type a text")
    if len(text) > MOST_CHARACTERS:
        raise DataError(
            f"a text of {len(text):,} characters; this page takes at most {MOST_CHARACTERS:,}"
        )
    return text


def read_line(text: str | None) -> str:
    """What a person typed, in one line; errors as for `_text`."""
    return " ".join(_text(text).split())


def _lines(text: str | None, what: str, most: int) -> list[str]:
    """The lines of a text that are not blank."""
    lines = [line.strip() for line in _text(text).splitlines() if line.strip()]
    if len(lines) > most:
        raise DataError(f"{len(lines):,} lines; this page takes one {what} a line, at most {most}")
    return lines


def read_upload(upload: str | None) -> bytes:
    """The bytes of an uploaded file, which the library decodes as it does any other.

    Raises:
        DataError: no file, no regular file, or one of more than `MOST_BYTES`.
    """
    if not upload:
        raise DataError("no picture: upload one")
    state = os.lstat(upload)
    if not stat.S_ISREG(state.st_mode):
        raise DataError("the picture is no regular file")
    if state.st_size > MOST_BYTES:
        raise DataError(f"the picture is larger than {MOST_BYTES // 2**20} MiB")
    with open(upload, "rb") as file:
        return file.read()
