"""The verbs that work on standard input: one line out for each line in, as the lines come.

A function takes the parsed arguments, as those of `verbs` do, and these verbs have no fields.
The library is imported inside, so that other verbs stay quick.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jaxformers.cli.verbs import load_code
from jaxformers.errors import ConfigError, DataError, printable

Use = Callable[[list[str]], list[str]]
"""Answers to lines, one for each.

Raises DataError, which begins with "line 1" or "text 1", for what cannot be used.
"""


def translate(args: argparse.Namespace, fields: list[str]) -> None:
    """Translates standard input to standard output."""
    _at_least_one(args, "beams", "n_best", "batch")
    load_code(args)
    from jaxformers.api import translate as translated

    options = dict(
        beams=args.beams,
        alpha=args.alpha,
        no_repeat_ngram=args.no_repeat_ngram,
        truncate=args.truncate,
    )

    def use(lines: list[str]) -> list[str]:
        if args.n_best is None:
            return translated(args.run, lines, **options)
        n_best = translated(args.run, lines, n_best=args.n_best, **options)
        return ["\t".join(f"{text}\t{score:.4f}" for text, score in best) for best in n_best]

    _answer_lines(use, args)


def fill_mask(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints words for every mask."""
    _at_least_one(args, "top", "batch")
    load_code(args)
    from jaxformers.api import fill_mask as filled
    from jaxformers.api import load_text

    def use(lines: list[str]) -> list[str]:
        predictions = filled(args.run, lines, top=args.top)
        for number, candidates in enumerate(predictions, 1):
            if not candidates:
                mask = load_text(args.run).mask_token
                raise DataError(f"line {number} has no {mask}: put it where a word is wanted")
        return [_candidates(candidates) for candidates in predictions]

    _answer_lines(_but_empty(use), args)


def _candidates(candidates: list[list[tuple[str, float]]]) -> str:
    """The candidates of each mask of a line, with their probabilities."""
    return "\t".join(
        " ".join(f"{printable(word)} {share:.4f}" for word, share in words) for words in candidates
    )


def classify(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the class of every line and its probability."""
    _at_least_one(args, "batch")
    load_code(args)
    from jaxformers.api import classify as classified

    def use(lines: list[str]) -> list[str]:
        rows = _columns(lines, 1, 2, "a text, or two with a tab between them")
        predictions = classified(args.run, [(*row, "")[:2] for row in rows], truncate=args.truncate)
        return [f"{printable(label)}\t{value:.4f}" for label, value in predictions]

    _answer_lines(_but_empty(use), args)


def answer(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the answer to every question."""
    _at_least_one(args, "longest", "batch")
    if args.null_threshold is not None and math.isnan(args.null_threshold):
        raise ConfigError("--null-threshold: nan is no score")
    load_code(args)
    from jaxformers.api import answer as answered

    options = dict(longest=args.longest, null_threshold=args.null_threshold)

    def use(lines: list[str]) -> list[str]:
        rows = _columns(lines, 2, 2, "a question, a tab and its context")
        answers = answered(args.run, [row[0] for row in rows], [row[1] for row in rows], **options)
        return [
            f"{answer.text}\t{answer.score:.4f}\t{answer.start}\t{answer.end}" for answer in answers
        ]

    _answer_lines(_but_empty(use), args)


def tag(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the entities of every line."""
    _at_least_one(args, "batch")
    load_code(args)
    from jaxformers.api import tag as tagged

    options = dict(aggregation=args.aggregation, truncate=args.truncate)

    def use(lines: list[str]) -> list[str]:
        return ["\t".join(map(_entity_columns, row)) for row in tagged(args.run, lines, **options)]

    _answer_lines(_but_empty(use), args)


def _entity_columns(entity: Any) -> str:
    """An entity as five columns; blanks stand for tabs in its text."""
    text, label = " ".join(entity.text.split()), printable(entity.label)
    return f"{text}\t{label}\t{entity.score:.4f}\t{entity.start}\t{entity.end}"


def embed(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the vector of every line, or saves all of them as an array."""
    _at_least_one(args, "batch")
    if args.output is not None:
        check_array_path(args.output)
    load_code(args)
    from jaxformers.api import embed as embedded

    def vectors(lines: list[str]) -> Any:
        return embedded(args.run, lines, pooling=args.pooling, normalize=args.normalize)

    if args.output is None:
        return _answer_lines(
            lambda lines: ["\t".join(map(str, row)) for row in vectors(lines)], args
        )
    _save(args.output, vectors, args.batch)


def check_array_path(path: str) -> None:
    """Raises ConfigError unless `--output` names a `.npy` file in a folder that exists."""
    if not path.endswith(".npy"):
        raise ConfigError(f"--output: {path} does not end in .npy")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise ConfigError(f"--output: there is no folder {os.path.dirname(path)}")


def _save(path: str, vectors: Callable[[list[str]], Any], batch: int) -> None:
    """Writes one array of all lines' vectors; nothing is left of it where that fails."""
    import numpy as np

    partial_path = f"{path}.part"
    with open(partial_path, "wb") as file:
        try:
            arrays = [vectors([]), *map(vectors, line_batches(sys.stdin.fileno(), batch))]
            np.save(file, np.concatenate(arrays))
        except BaseException:
            os.remove(partial_path)
            raise
    os.replace(partial_path, path)
    print(f"wrote {path}: {sum(map(len, arrays))} vectors of {arrays[0].shape[1]}")


# ---------------------------------------------------------------- lines in, lines out


def _at_least_one(args: argparse.Namespace, *options: str) -> None:
    for option in options:
        value = getattr(args, option)
        if value is not None and value < 1:
            raise ConfigError(f"--{option.replace('_', '-')}: {value} is not at least 1")


def _answer_lines(use: Use, args: argparse.Namespace) -> None:
    """Standard input through `use` to standard output, by the options `--batch` and `--skip`."""
    use([])  # mistakes in RUN and in the options are reported before a line is read
    number = 0
    for lines in line_batches(sys.stdin.fileno(), args.batch):
        for out in _answered(use, lines, number, skip=args.skip):
            sys.stdout.buffer.write(f"{out}\n".encode())
        sys.stdout.buffer.flush()
        number += len(lines)


def _answered(use: Use, lines: list[str], before: int, *, skip: bool) -> Iterator[str]:
    """Answers to `lines`; where there is none to a line, to those before it.

    With `skip` such a line is reported on standard error, and its answer is empty.
    """
    try:
        yield from use(lines)
    except DataError:
        for number, line in enumerate(lines, before + 1):
            try:
                yield from use([line])
            except DataError as error:
                sys.stdout.buffer.flush()
                fault = re.sub("^(line|text) 1 ", "", str(error))
                message = f"standard input, line {number} {fault}"
                if not skip:
                    raise DataError(message) from error
                print(f"jaxformers: skipped: {message}", file=sys.stderr)
                yield ""


def _but_empty(use: Use) -> Use:
    """`use` of the lines that are not blank; a blank one is answered by an empty one."""

    def used(lines: list[str]) -> list[str]:
        answers = iter(use([line for line in lines if line.strip()]))
        return [next(answers) if line.strip() else "" for line in lines]

    return used


def _columns(lines: list[str], least: int, most: int, layout: str) -> list[list[str]]:
    """The lines' columns, which tabs divide.

    Raises:
        DataError: a line with another number of columns.
    """
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if not least <= len(row) <= most:
            count = f"{len(row)} column{'s' * (len(row) > 1)}"
            raise DataError(f"line {number} has {count}: give {layout}")
    return rows


def line_batches(source: int, size: int) -> Iterator[list[str]]:
    """Lines of a file descriptor, at most `size` at a time, given on as soon as there are any.

    Raises:
        DataError: a line that is not UTF-8, by its number, after the lines before it.
    """
    number = 0
    for block in _blocks(source, size):
        for start in range(0, len(block), size):
            lines, fault = _decoded(block[start : start + size], number)
            number += len(lines)
            if lines:
                yield lines
            if fault:
                raise fault


def _decoded(raw: list[bytes], number: int) -> tuple[list[str], DataError | None]:
    lines: list[str] = []
    for line in raw:
        try:
            lines.append(line.rstrip(b"\r").decode())
        except UnicodeDecodeError as error:
            return lines, DataError(
                f"standard input, line {number + len(lines) + 1}: not UTF-8 (byte "
                f"0x{line[error.start]:02x} at position {error.start + 1}); convert it first, "
                "for example with iconv"
            )
    return lines, None


def _blocks(source: int, size: int) -> Iterator[list[bytes]]:
    """Whole lines: all that can be read at once, up to `size` of them or a little more."""
    remainder, ended = b"", False
    while not ended:
        data = more = os.read(source, 1 << 16)
        while more and data.count(b"\n") < size and select.select([source], [], [], 0.01)[0]:
            more = os.read(source, 1 << 16)
            data += more
        ended = not more
        *lines, remainder = (remainder + data).split(b"\n")
        if lines:
            yield lines
    if remainder:
        yield [remainder]
