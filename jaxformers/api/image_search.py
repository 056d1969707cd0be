"""Search for pictures in a folder, by words or by a picture."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from jaxformers.api import sources
from jaxformers.api.sources import ImageTextSource
from jaxformers.data.images.preprocessing import one_by_one
from jaxformers.data.images.sources.folder_listing import ENDINGS
from jaxformers.errors import DataError, check_top
from jaxformers.tasks.image_text import image_index
from jaxformers.tasks.image_text.search import SearchResult, embed_readable, search_index
from jaxformers.tasks.image_text.zero_shot import embed_texts, unit_vectors
from jaxformers.tasks.images import image_inference


def search(
    source: ImageTextSource,
    query: Any,
    folder: epath.PathLike,
    *,
    top: int = 5,
    index: epath.PathLike | None = None,
    truncate: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """The pictures below a folder that fit a text, or resemble a picture; `.figure()` draws them.

    The pictures' vectors are kept on disk. The next search reads pictures that are new or have
    changed, and all of them where the weights or the preprocessing are others. A search that was
    cut off goes on where it stopped. Pictures that do not decode are skipped and listed.

    Args:
        source: a CLIP or SigLIP, as for `zero_shot`; where all queries are pictures, any model that
            `embed_images` takes.
        query: a text or a picture, or several: pictures as for `classify_images`, where a text that
            is the path of a file is that picture.
        folder: of the pictures, those in folders below it included.
        top: how many hits of each query.
        index: folder for the vectors, of one folder of pictures; None: one in `$JAXFORMERS_CACHE`,
            else in `~/.cache/jaxformers`.
        truncate: whether a text with more tokens than the model has positions is cut.
        progress: is called with the number of pictures that were read and that are to be read.

    Returns:
        `.hits`, of each query (path, cosine), the best first; `.searched`, `.damaged`.

    Raises:
        ConfigError: no hit asked for.
        DataError: a folder without pictures, no query, a query that cannot be read or is too long.
        WeightsError: a model that gives no vectors of pictures, or none of texts that a text query
            needs; another model's tokenizer, or outputs that are not finite.

    Example:
        >>> len(jf.search("openai/clip-vit-base-patch32", "a dog", "photos", top=3).hits[0])
        3
    """
    check_top(top)
    if not isinstance(folder, str | os.PathLike) or not os.fspath(folder):
        raise DataError(f"{folder!r:.80} is no folder: give the path of a folder of pictures")
    queries = _queries(query)
    model, variables = sources.model_of(source)
    image_inference.check_embedder(model, sources.name_of(source))
    preprocessing = sources.preprocessing_of(source, model)
    # Queries come first: a mistake in them is named before the folder is read.
    vectors = _query_vectors(source, model, variables, preprocessing, queries, truncate)
    fingerprint = image_index.weights_fingerprint(model, variables, preprocessing)
    entries = image_index.refresh(
        Path(index).expanduser() if index else image_index.default_folder(folder, fingerprint),
        folder,
        fingerprint,
        lambda paths: embed_readable(model, variables, preprocessing, paths),
        progress,
    )
    hits = search_index(entries, vectors, top)
    return SearchResult(tuple(queries), tuple(hits), len(entries.paths), tuple(entries.damaged))


def _queries(query: Any) -> list[Any]:
    """The texts and pictures of `query`, one at least."""
    queries = [_query(value) for value in one_by_one(query)]
    if not queries:
        raise DataError("no query: give a text or a picture")
    return queries


def _query(value: Any) -> Any:
    """A text, or a picture; of a picture in a file its path, which is no `str`.

    Raises:
        DataError: the name of a picture's file that is not there.
    """
    if not isinstance(value, str):
        return value
    path = os.path.expanduser(value)
    # Longer names than a file's cannot be looked up.
    if len(value) < 4096 and "\0" not in value and os.path.isfile(path):
        return Path(path)
    if value.lower().endswith(ENDINGS):
        raise DataError(f"there is no picture {value}: a text as query ends otherwise")
    return value


def _query_vectors(source, model, variables, preprocessing, queries, truncate) -> np.ndarray:
    """The unit vector of each query, `[q, E]`."""
    texts = [query for query in queries if isinstance(query, str)]
    pictures = [query for query in queries if not isinstance(query, str)]
    vectors: dict[bool, np.ndarray] = {}
    if texts:
        _, _, tokenizer = sources.text_model("search", source)
        vectors[True] = embed_texts(
            model, variables, tokenizer, texts, truncate=truncate, normalize=True
        )
    if pictures:
        encodings = image_inference.embed_images(model, variables, preprocessing, pictures)
        vectors[False] = unit_vectors(encodings)
    # Back into the order of the queries.
    rows = {kind: iter(array) for kind, array in vectors.items()}
    return np.stack([next(rows[isinstance(query, str)]) for query in queries])
