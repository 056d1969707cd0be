"""The verbs that answer pictures by a model of images and texts, or write their vectors.

A function takes the parsed arguments, as those of `verbs` do, and these verbs have no fields.
The library is imported inside, so that other verbs stay quick.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxformers.cli.stdin_verbs import check_array_path
from jaxformers.cli.verbs import load_code
from jaxformers.errors import ConfigError, DataError, printable

if TYPE_CHECKING:
    from jaxformers.interpret import ExplainedAnswer, ExplainedMatch, ExplainedPicture


def zero_shot(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the classes of pictures by the names of the classes."""
    if args.top < 1:
        raise ConfigError(f"--top: {args.top} is not at least 1")
    _check_not_blank("--name", *(args.name or ()))
    names = [*(args.name or ()), *(_names(args.names) if args.names else ())]
    if args.prompts and (names or args.template):
        raise ConfigError("--prompts has names and templates of its own: leave out the others")
    if not names and not args.prompts:
        raise ConfigError(
            "no class names: give --name NAME, --names FILE with one a line, or --prompts NAME"
        )
    load_code(args)
    from jaxformers.api import zero_shot as classified
    from jaxformers.tasks.image_text.zero_shot import TEMPLATE

    templates = args.template or [TEMPLATE]
    if args.prompts:
        from jaxformers.evaluation.zero_shot import load_class_prompts

        prompts = load_class_prompts(args.prompts)
        names, templates = prompts.names, prompts.template_set()
    paths = _pictures(args.picture)
    options = dict(template=templates, top=args.top, truncate=args.truncate)
    for path, classes in zip(paths, classified(args.run, paths, names, **options), strict=True):
        shares = (f"{printable(name)} {share:.4f}" for name, share in classes)
        print("\t".join([printable(path), *shares]))


def ask(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the answer to a prompt, or writes the picture that is the answer."""
    if args.beams < 1:
        raise ConfigError(f"--beams: {args.beams} is not at least 1")
    load_code(args)
    from PIL import Image

    from jaxformers.api import ask as asked

    if args.output is not None:
        _check_output(Path(args.output))
    output = "text" if args.output is None else "image"
    options = dict(beams=args.beams, seed=args.seed)
    answer = asked(args.run, args.prompt, args.image, output, **options)
    for problem in answer.problems:
        print(f"jaxformers: not understood: {printable(problem)}", file=sys.stderr)
    if args.output is None:
        print(printable(answer.text, len(answer.text)))
        return
    try:
        Image.fromarray(answer.picture).save(args.output)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"--output: {args.output} cannot be written: {reason}") from None
    print(f"wrote {args.output}")


def _check_output(path: Path) -> None:
    """Refuses a path that no RGB picture can be written to, before the model runs."""
    from PIL import Image

    Image.init()
    file_format = Image.registered_extensions().get(path.suffix.lower())
    try:
        Image.new("RGB", (16, 16)).save(io.BytesIO(), file_format)
    except (OSError, ValueError, KeyError):  # no such format, or none of Pillow's that it can write
        raise ConfigError(f"--output: {path} is no kind of picture: name a .png") from None
    if path.is_dir():
        raise DataError(f"--output: {path} cannot be written: it is a folder")
    if not path.parent.is_dir():
        raise DataError(f"--output: {path} cannot be written: there is no folder {path.parent}")


def explain(args: argparse.Namespace, fields: list[str]) -> None:
    """Draws where in a picture the likeliest classes lie, or what texts and answers rest on."""
    if args.top < 1:
        raise ConfigError(f"--top: {args.top} is not at least 1")
    if args.prompt is None and args.answer is None and args.image is None:
        raise ConfigError("--image is missing (for a Unified-IO, --prompt)")
    _check_not_blank("--text", *(args.text or ()))
    load_code(args)
    from jaxformers.api import explain as explained
    from jaxformers.interpret import check_picture_path, save

    check_picture_path(args.output)
    options = dict(top=args.top, text=args.text, prompt=args.prompt, answer=args.answer)
    explanation = explained(args.run, args.image, args.method, **options)
    if args.prompt is not None:
        lines = _answer_lines(explanation)
    else:
        lines = _class_lines(explanation) if args.text is None else _text_lines(explanation)
    print("\n".join(lines))
    if explanation.uniform:
        print("no evidence: all pixels of the picture are alike")
    print(f"wrote {save(explanation.figure(), args.output)}")


def _class_lines(explanation: ExplainedPicture) -> list[str]:
    """A line for each class: its name and probability."""
    pairs = zip(explanation.classes, explanation.probabilities, strict=True)
    return [f"{printable(name)}\t{share:.4f}" for name, share in pairs]


def _text_lines(explanation: ExplainedMatch) -> list[str]:
    """A line for each text: the text, its cosine, and each word with its share of the relevance."""
    lines = []
    for text, cosine, words, shares in zip(
        explanation.texts,
        explanation.cosines,
        explanation.words,
        explanation.word_shares(),
        strict=True,
    ):
        lines.append("\t".join([printable(text), f"{cosine:.4f}", *_shares(words, shares)]))
    return lines


def _answer_lines(explanation: ExplainedAnswer) -> list[str]:
    """A line for the answer, and one for each token with its probability.

    Behind them stand the picture's share of the relevance, if there is one, and each word's.
    """
    names = [printable(explanation.answer, len(explanation.answer))]
    pairs = zip(explanation.tokens, explanation.probabilities, strict=True)
    names += [f"{printable(token)} {probability:.4f}" for token, probability in pairs]
    picture = [
        [] if explanation.picture is None else [f"(picture) {share:.4f}"]
        for share in explanation.picture_shares()
    ]
    rows = zip(names, picture, explanation.word_shares(), strict=True)
    return [
        "\t".join([name, *first, *_shares(explanation.words, shares)])
        for name, first, shares in rows
    ]


def _shares(words: Sequence[str], shares: Sequence[float]) -> list[str]:
    """Each word with its share."""
    return [f"{printable(word)} {share:.4f}" for word, share in zip(words, shares, strict=True)]


def embed_images(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the vectors of pictures, or saves them as an array."""
    if args.output is not None:
        check_array_path(args.output)
    load_code(args)
    import numpy as np

    from jaxformers.api import embed_images as embedded

    paths = _pictures(args.picture)
    vectors = embedded(args.run, paths, normalize=args.normalize)
    if args.output is None:
        for path, vector in zip(paths, vectors, strict=True):
            print("\t".join([printable(path), *map(str, vector)]))
        return
    np.save(args.output, vectors)
    print(f"wrote {args.output}: {len(vectors)} vectors of {vectors.shape[1]}")


def probe(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints how well a model's frozen features tell the classes of labelled pictures."""
    load_code(args)
    from jaxformers.api import probe as probed

    projected = True if args.projected else None
    options = dict(method=args.method, projected=projected, normalize=args.normalize)
    for name, value in probed(args.run, args.folder, **options).items():
        print(f"{name}: {value:.4g}")


def search(args: argparse.Namespace, fields: list[str]) -> None:
    """Prints the pictures of a folder that are nearest to a text or a picture; may draw them."""
    if args.top < 1:
        raise ConfigError(f"--top: {args.top} is not at least 1")
    _check_not_blank("QUERY", args.query)
    load_code(args)
    from jaxformers.api import search as searched

    if args.output is not None:
        from jaxformers.interpret import check_picture_path, save

        check_picture_path(args.output)
    options = dict(top=args.top, index=args.index, truncate=args.truncate, progress=_report)
    result = searched(args.run, args.query, args.folder, **options)
    for path, score in result.hits[0]:
        print(f"{printable(path)}\t{score:.4f}")
    if result.damaged:
        print(
            f"jaxformers: skipped {len(result.damaged):,} of "
            f"{result.searched + len(result.damaged):,} pictures, which do not decode: "
            f"{printable(result.damaged[0])}{' ...' if len(result.damaged) > 1 else ''}",
            file=sys.stderr,
        )
    if args.output is not None:
        print(f"wrote {save(result.figure(), args.output)}")


def _report(count: int, total: int) -> None:
    print(f"jaxformers: read {count:,} of {total:,} pictures", file=sys.stderr)


def _check_not_blank(name: str, *texts: str) -> None:
    """Raises ConfigError for an argument without any character but blanks."""
    if not all(map(str.strip, texts)):
        raise ConfigError(f"{name} is empty: give a text")


def _pictures(paths: list[str]) -> list[str]:
    """Paths of pictures, those in folders too; what is passed over goes to standard error."""
    from jaxformers.tasks.images.image_inference import list_pictures

    pictures, passed_over = list_pictures(paths)
    for line in passed_over:
        print(f"jaxformers: {line}", file=sys.stderr)
    return pictures


def _names(path: str) -> list[str]:
    """The lines of a file that are not blank."""
    from jaxformers.data.images.preprocessing import read_file

    try:
        lines = read_file(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"--names: {path} is not text in UTF-8") from None
    return [line.strip() for line in lines if line.strip()]
