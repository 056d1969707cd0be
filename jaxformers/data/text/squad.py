"""Sources of questions whose answer is a span of a text: SQuAD, sets in its form, a bundled one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from etils import epath

from jaxformers.data.files.json_text import parse_json
from jaxformers.data.files.tfds_rows import TfdsRows
from jaxformers.data.pipeline.subsets import evenly_spaced
from jaxformers.data.text.questions import Mismatched, Question, Questions
from jaxformers.data.translation.sources import BundledPairs
from jaxformers.errors import DataError
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.regular_files import check_regular

LARGEST = 4 << 30  # bytes, unpacked: well above TriviaQA, far below what a gzip bomb makes
CHUNK = 1024


@dataclass(frozen=True)
class SquadJson:
    """A file in SQuAD's JSON, 1.1 or 2.0, or in Hugging Face's flat form; plain or `.gz`.

    SQuAD's own form nests questions in paragraphs and articles; TriviaQA's files in that form are
    read too. In the flat form each question is an object with its `context`, whose `answers` are
    `{"text": [...], "answer_start": [...]}`, empty where there is no answer: JSON Lines, a list, or
    a list under "data". Ids may be whole numbers. Questions without `answers` have no labels: they
    are answered and not scored.

    `open` raises DataError where the file is missing, damaged, too large or malformed (the place is
    named), and where an answer does not stand at its offset (the question is named).
    """

    path: str
    """The file, local or gs://."""
    mismatched: Mismatched = "error"
    """An answer that does not stand at its offset: refuse the file, or `skip` and count."""

    def open(self) -> Questions:
        """The questions in the order of the file."""
        data = _json(epath.Path(self.path))
        entries = data.get("data") if isinstance(data, dict) and "context" not in data else data
        entries = [entries] if isinstance(entries, dict) else entries
        if not isinstance(entries, list):
            raise DataError(f"{self.path}: the file lacks 'data'; it is not in SQuAD's form")
        return Questions(_entries(entries, self.path), self.path, self.mismatched)


@dataclass(frozen=True)
class TfdsSquad:
    """SQuAD as TFDS keeps it, prepared in `data_dir` as array_record."""

    name: str = "squad/v1.1"
    """TFDS name: `squad/v1.1` or `squad/v2.0`, with `:version` if not the newest is wanted."""
    split: str = "train"
    """Split, slices such as `train[:1%]` included."""
    data_dir: str | None = None
    """Folder or bucket path; None means $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    mismatched: Mismatched = "error"
    """An answer that does not stand at its offset: refuse the set, or `skip` and count."""

    def open(self) -> Questions:
        """The questions in the order of the prepared files."""
        features = ["id", "title", "context", "question", "answers"]
        features += ["is_impossible"] * ("/v2" in self.name)
        rows = TfdsRows(self.name, self.split, features, self.data_dir)
        name = f"{self.name} {rows.version}, {self.split}"
        return Questions(_tfds_questions(rows), name, self.mismatched)


@dataclass(frozen=True)
class BundledQuestions(CheckedFields):
    """Small questions made from sentences inside the package: "Which word follows X?".

    For rehearsals and tests, which must work offline: the answer can be read off the context, but
    the set measures nothing. It is the same every time.
    """

    split: Literal["train", "held_out"] = "train"
    """Sentences of other documents each."""
    count: PositiveInt = 48
    """How many questions, two for each context."""
    impossible: bool = False
    """Make every third question one that its context does not answer, as in SQuAD 2.0."""

    def open(self) -> Questions:
        """The questions, made anew."""
        name = f"bundled questions, {self.split}{', some impossible' * self.impossible}"
        return Questions(_made_questions(self), name)


# ---------------------------------------------------------------------- SQuAD's JSON


def _json(path: epath.Path) -> Any:
    """The file's JSON, checked for its size before it is parsed."""
    if not path.exists():
        raise DataError(f"there is no file {path}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file in SQuAD's JSON")
    check_regular(path, DataError)
    try:
        with path.open("rb") as raw:
            content = (gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw).read(
                LARGEST + 1
            )
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path} is not a gzip file, or it is damaged") from None
    if len(content) > LARGEST:
        raise DataError(f"{path} holds over {LARGEST >> 30} GiB: split it into smaller files")
    try:
        return parse_json(content)
    except (ValueError, RecursionError) as error:
        if (objects := _json_lines(content, path)) is not None:
            return objects
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not JSON ({reason}): is the download complete?") from None


def _json_lines(content: bytes, path: epath.Path) -> list[Any] | None:
    """The objects of JSON Lines; None where the first line is no object by itself."""
    objects = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            objects.append(parse_json(line))
        except (ValueError, RecursionError):
            if not objects:
                return None
            raise DataError(
                f"{path}, line {number:,}: not JSON, as the lines before it are"
            ) from None
        if not isinstance(objects[-1], dict):
            return None
    return objects or None


def _entries(entries: list[Any], path: str) -> Iterator[Question]:
    for i, entry in enumerate(entries):
        at = f"data[{i}]"
        title = _of(entry, "title", str, path, at, "")
        if "context" in entry:
            yield _flat_entry(entry, title, path, at)
            continue
        for j, paragraph in enumerate(_of(entry, "paragraphs", list, path, at)):
            inside = f"{at}.paragraphs[{j}]"
            context = _of(paragraph, "context", str, path, inside)
            for k, qa in enumerate(_of(paragraph, "qas", list, path, inside)):
                yield _entry(qa, title, context, path, f"{inside}.qas[{k}]")


def _entry(qa: Any, title: str, context: str, path: str, at: str) -> Question:
    """A question of SQuAD's own form."""
    question = _of(qa, "question", str, path, at)
    if "answers" not in qa:
        return Question(_id(qa, path, at), title, context, question, (), (), None)
    answers = _of(qa, "answers", list, path, at)
    paths = [f"{at}.answers[{n}]" for n in range(len(answers))]
    return Question(
        _id(qa, path, at),
        title,
        context,
        question,
        tuple(_of(a, "text", str, path, p) for a, p in zip(answers, paths, strict=True)),
        tuple(_of(a, "answer_start", int, path, p) for a, p in zip(answers, paths, strict=True)),
        _of(qa, "is_impossible", bool, path, at, False),
    )


def _flat_entry(entry: dict[str, Any], title: str, path: str, at: str) -> Question:
    """A question of Hugging Face's flat form."""
    context = _of(entry, "context", str, path, at)
    question = _of(entry, "question", str, path, at)
    if "answers" not in entry:
        return Question(_id(entry, path, at), title, context, question, (), (), None)
    answers, inside = _of(entry, "answers", dict, path, at), f"{at}.answers"
    texts = _of(answers, "text", list, path, inside)
    starts = _of(answers, "answer_start", list, path, inside)
    if len(texts) != len(starts):
        raise DataError(f"{path}: {inside} has {len(texts)} texts but {len(starts)} offsets")
    for values, name, kind in ((texts, "text", str), (starts, "answer_start", int)):
        for n, value in enumerate(values):
            _of({name: value}, name, kind, path, f"{inside}[{n}]")
    return Question(
        _id(entry, path, at), title, context, question, tuple(texts), tuple(starts), not texts
    )


def _id(qa: dict[str, Any], path: str, at: str) -> str:
    """The question's id, a text or a whole number."""
    value = qa.get("id")
    return str(value) if type(value) is int else _of(qa, "id", str, path, at)


def _of(owner: Any, key: str, kind: type, path: str, at: str, default: Any = None) -> Any:
    """`owner[key]`, which must be of `kind`; `default`, where there is one, if it is not there."""
    names = {list: "a list", str: "a text", int: "a number", bool: "true or false"}
    names[dict] = "an object"
    if not isinstance(owner, dict):
        raise DataError(f"{path}: {at} is no object; the file is not in SQuAD's form")
    if key not in owner and default is not None:
        return default
    if key not in owner:
        raise DataError(f"{path}: {at} lacks {key!r}; the file is not in SQuAD's form")
    if type(owner[key]) is not kind:
        raise DataError(f"{path}: {at}.{key} is not {names[kind]}")
    return owner[key]


# ---------------------------------------------------------------------- the other sources


def _tfds_questions(rows: TfdsRows) -> Iterator[Question]:
    for start in range(0, len(rows), CHUNK):
        for row in rows.read(range(start, min(start + CHUNK, len(rows)))):
            yield Question(
                *(row[name] for name in ("id", "title", "context", "question")),
                tuple(row["answers"]["text"]),
                tuple(int(start_char) for start_char in row["answers"]["answer_start"]),
                bool(row.get("is_impossible", False)),
            )


def _made_questions(config: BundledQuestions) -> Iterator[Question]:
    pairs = BundledPairs("en-de", config.split, min_source_words=7, max_source_words=14).open()
    num_contexts = -(-config.count // 2)
    chosen = pairs.read(evenly_spaced(len(pairs), num_contexts).tolist())
    contexts = [" ".join(source.split()) for source, _ in chosen]
    for number in range(config.count):
        context, previous = contexts[number // 2], contexts[number // 2 - 1]
        word, answer, start = _word_after(context, number)
        foreign, _, _ = _word_after(previous, number)
        impossible = config.impossible and number % 3 == 2 and foreign not in context
        yield Question(
            f"{config.split}-{number}",
            "bundled",
            context,
            f"Which word follows {foreign if impossible else word}?",
            () if impossible else (answer,),
            () if impossible else (start,),
            impossible,
        )


def _word_after(context: str, number: int) -> tuple[str, str, int]:
    """A word that stands once in `context`, the word behind it, and where that one begins."""
    words = context.split(" ")
    # SQuAD's measures drop articles, so that nothing of an answer "the" would be left to match.
    named = [words[k].isalpha() and _names(words[k + 1]) for k in range(len(words) - 1)]
    candidates = [k for k, good in enumerate(named) if good and words.count(words[k]) == 1] or [0]
    k = candidates[7 * number % len(candidates)]
    return words[k], words[k + 1], len(" ".join(words[: k + 1])) + 1


def _names(word: str) -> bool:
    return word.isalpha() and word.lower() not in ("a", "an", "the")
