"""Search for pictures by words or by a picture: the nearest vectors of an index, exactly.

Axis letters: n pictures, q queries, E embedding.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxformers.data.images import Preprocessing
from jaxformers.data.images.decoding import ColourRule, decoding
from jaxformers.data.images.preprocessing import read_picture
from jaxformers.errors import DataError
from jaxformers.tasks.image_text.image_index import ImageIndex
from jaxformers.tasks.image_text.zero_shot import unit_vectors
from jaxformers.tasks.images.image_inference import embed_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FAISS_FROM = 1_000_000  # pictures
QUERY_BLOCK = 64
THUMBNAIL = 224  # pixels of a hit's longer side in the figure


class Hit(NamedTuple):
    """A picture's path, and its cosine with the query."""

    path: str
    score: float


@dataclass(frozen=True)
class SearchResult:
    """The pictures nearest to each query; `figure()` draws them.

    Attributes:
        queries: texts, and pictures: paths, images or arrays.
        hits: of each query, the best first.
        searched: number of pictures that were compared.
        damaged: paths of the pictures that were skipped because they do not decode.
    """

    queries: tuple[Any, ...]
    hits: tuple[tuple[Hit, ...], ...]
    searched: int
    damaged: tuple[str, ...] = ()

    def figure(self) -> Figure:
        """A row for each query: its text or picture, and its hits with their cosines.

        Raises:
            DataError: a hit's file is gone or was damaged since.
        """
        from jaxformers.interpret.figures import hits_figure  # matplotlib: only where it is needed

        queries = [q if isinstance(q, str) else thumbnail(q) for q in self.queries]
        hits = [[(thumbnail(hit.path), hit.score) for hit in row] for row in self.hits]
        return hits_figure(queries, hits)


def search_index(
    index: ImageIndex, queries: Float[np.ndarray, "q E"], top: int
) -> list[tuple[Hit, ...]]:
    """The `top` pictures of the greatest cosine for each query, the best first.

    Args:
        index: of the pictures.
        queries: of unit length.
        top: how many; fewer where the index has fewer.

    Raises:
        DataError: an index all of whose pictures are damaged.
    """
    if not index.paths:
        raise DataError(f"none of the {len(index.damaged):,} pictures decodes")
    scores, rows = nearest_rows(index.vectors, queries, min(top, len(index.paths)))
    return [
        tuple(Hit(index.paths[i], float(score)) for i, score in zip(*pair, strict=True))
        for pair in zip(rows, scores, strict=True)
    ]


def nearest_rows(
    vectors: Float[np.ndarray, "n E"],
    queries: Float[np.ndarray, "q E"],
    top: int,
    faiss_from: int = FAISS_FROM,
) -> tuple[Float[np.ndarray, "q K"], Int[np.ndarray, "q K"]]:
    """The greatest inner products of each query and their rows; of equal ones the first row.

    Exact: a matrix product, or from `faiss_from` rows on faiss's blocked one where it is installed
    (the extra `search`), which is threaded and keeps no `[q, n]` scores.
    """
    if len(vectors) >= faiss_from and importlib.util.find_spec("faiss"):
        import faiss

        vectors, queries = (np.ascontiguousarray(x, np.float32) for x in (vectors, queries))
        scores, rows = faiss.knn(queries, vectors, top, metric=faiss.METRIC_INNER_PRODUCT)
        order = np.lexsort((rows, -scores))
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    rows = np.empty((len(queries), top), np.int64)
    scores = np.empty((len(queries), top), np.float32)
    for start in range(0, len(queries), QUERY_BLOCK):
        products = queries[start : start + QUERY_BLOCK] @ vectors.T  # [b, n]
        for number, row in enumerate(products, start):
            rows[number] = _greatest(row, top)
            scores[number] = row[rows[number]]
    return scores, rows


def embed_readable(
    model: Any, variables: Any, preprocessing: Preprocessing, paths: Sequence[str]
) -> tuple[Float[np.ndarray, "n E"], list[bool]]:
    """Unit vectors of the pictures, and which of them decode; the vectors of the others are 0.

    Raises:
        WeightsError: outputs that are not finite.
    """

    def decode(path: str) -> np.ndarray | None:
        try:
            return preprocessing.pixels([path])[0]
        except DataError:
            return None

    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(decode, paths))
    readable = [picture is not None for picture in pictures]
    pixels = [picture for picture in pictures if picture is not None]
    pixels = np.stack(pixels) if pixels else preprocessing.pixels([])
    encodings = embed_pixels(model, variables, preprocessing, pixels)
    vectors = np.zeros((len(paths), encodings.shape[1]), np.float32)
    vectors[readable] = unit_vectors(encodings)
    return vectors, readable


def _greatest(row: Float[np.ndarray, "n"], top: int) -> Int[np.ndarray, "K"]:
    """Indices of the greatest values, the greatest first, of equal ones the first."""
    threshold = np.partition(row, len(row) - top)[len(row) - top]
    candidates = np.flatnonzero(row >= threshold)
    return candidates[np.argsort(-row[candidates], kind="stable")[:top]]


def thumbnail(picture: Any) -> Float[np.ndarray, "H W C"]:
    """A picture, its longer side at most `THUMBNAIL`, as pixels between 0 and 1."""
    where = os.fspath(picture) if isinstance(picture, str | os.PathLike) else "the query"
    with decoding(where):
        # A copy: reducing it in place would change the caller's image.
        image = ColourRule(alpha="white").convert(read_picture(picture, where)).copy()
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        return np.asarray(image, np.float32) / 255
