"""The `jaxformers` command: parse, call, print.

Each verb is a row of `VERBS` and a function in `cli_verbs`. Nothing heavy is imported before a verb
is known to be right, so that `--help` and a mistyped verb are answered at once. A user's mistake
is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jaxformers import __version__, cli_verbs
from jaxformers.errors import ConfigError, UserError, did_you_mean

Option = tuple[str, dict]


@dataclass(frozen=True)
class Verb:
    """A verb: what it takes and what its help says."""

    summary: str
    positionals: tuple[str, ...]
    text: str
    options: tuple[Option, ...] = ()
    fields: bool = False
    """Whether any field of the experiment may be given too."""


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an int") from None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a float") from None


FOLDER = ("--folder", dict(metavar="FOLDER", help="the run's folder (default: runs/<its name>)"))
REHEARSE = ("--rehearse", dict(action="store_true", help="the same run shrunk to seconds"))
PROCESSES = (
    "--processes",
    dict(metavar="N", type=_int, default=1, help="as a pod of N processes on this machine"),
)
CODE = ("--file", dict(metavar="FILE", help="the experiment file, if the run uses its classes"))

VERBS: dict[str, Verb] = {
    "train": Verb(
        "train what an experiment file describes, or go on where it stopped",
        ("FILE",),
        """Trains the experiment that FILE's experiment() returns. The run's folder holds all of
it; the same command again resumes from its newest good checkpoint. Ctrl-C or SIGTERM
saves and stops; a second one stops at once.

Any field of the experiment may be given by its path: train FILE --help lists them.

examples:
  jaxformers train experiments/translation/demo.py
  jaxformers train experiments/translation/demo.py --steps 200 --task.model.width 64
  jaxformers train experiments/translation/wmt14_en_de_base.py --rehearse --processes 2
  jaxformers train my.py --folder gs://bucket/runs/my --mesh.fsdp 4 --schedule cosine""",
        (FOLDER, REHEARSE, PROCESSES),
        fields=True,
    ),
    "evaluate": Verb(
        "judge finished runs on their test set",
        ("RUN...",),
        """Evaluates the final weights of one run or several, and sets the results side by side.
Fields of the experiment may be changed, such as the data or the search.

examples:
  jaxformers evaluate runs/demo
  jaxformers evaluate runs/base runs/big --task.search.beams 1""",
        (CODE,),
        fields=True,
    ),
    "translate": Verb(
        "translate standard input, line by line",
        ("RUN",),
        """Translates standard input to standard output: one line out for each line in, empty lines
kept. RUN is a run's folder or one with published weights. Lines are answered as they
come, so it works in a pipe and by hand.

examples:
  echo "Click the button." | jaxformers translate runs/demo
  jaxformers translate runs/demo --beams 1 < english.txt > german.txt""",
        (
            ("--beams", dict(metavar="N", type=_int, default=4, help="beam width (1: greedy)")),
            ("--alpha", dict(metavar="A", type=_float, default=0.6, help="length penalty")),
            ("--batch", dict(metavar="N", type=_int, default=32, help="lines translated at once")),
            CODE,
        ),
    ),
    "prepare": Verb(
        "prepare a public data set",
        ("NAME",),
        """Downloads and prepares a public TFDS data set into a folder or bucket path, where the
network allows. Training then reads it without TensorFlow.

example:
  jaxformers prepare wmt14_translate/de-en --data-dir ~/data""",
        (("--data-dir", dict(metavar="DIR", required=True, help="where it is put")),),
    ),
    "convert": Verb(
        "write a run, or published weights, as a folder of weights",
        ("SOURCE", "TARGET"),
        """Reads SOURCE, a run's folder, a published folder or a hub name, and writes the folder
TARGET: config.json, model.safetensors and the tokenizer's files, as MarianMT where that
expresses the model exactly, else in our own format.

example:
  jaxformers convert runs/demo demo-marian""",
        (CODE,),
    ),
    "describe": Verb(
        "the network, its parameters and where they lie",
        ("FILE_OR_RUN",),
        """Prints the network as a tree, and every parameter's shape, type, axes and bytes on each
device of the experiment's mesh, without allocating any of it.

examples:
  jaxformers describe experiments/translation/wmt14_en_de_big.py
  jaxformers describe runs/demo --mesh.tensor 2""",
        (
            ("--devices", dict(metavar="N", type=_int, help="as on N devices (default: these)")),
            CODE,
        ),
        fields=True,
    ),
    "check": Verb(
        "after changing a model: does it still shard, train and match?",
        ("FILE",),
        """Answers in a minute, a line for each part, on eight emulated devices: every parameter
has its sharding row and divides, the model gives the numbers of its golden file, it trains
the same on meshes as on one device, and every collective of its step is explained. The
exit status is 1 when a part fails.

example:
  jaxformers check experiments/translation/demo.py""",
        (("--update", dict(action="store_true", help="write the golden file anew")),),
        fields=True,
    ),
}

HELP = """usage: jaxformers VERB ...

The landmark Transformers in JAX. One experiment file is one run of one paper.

verbs:
{verbs}
  help       the help of a verb: jaxformers help train

A first session:
  jaxformers train experiments/translation/demo.py      six to eight minutes on two cores
  echo "Click the button." | jaxformers translate runs/demo
  jaxformers describe experiments/translation/demo.py   the network and its parameters
  jaxformers train experiments/translation/demo.py --rehearse     any run, in seconds
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 2 for a mistake, 130 for Ctrl-C."""
    _quiet()
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        print("\njaxformers: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        return _fail(f"{error.filename or 'writing'}: {error.strerror}")


def _fail(line: str) -> int:
    print(f"jaxformers: {line}", file=sys.stderr)
    return 2


def _quiet() -> None:
    """Keeps the notes of XLA and of the libraries below from cluttering what we say."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # The same program is compiled once: the second start of a run begins at once.
    cache = os.environ.get("JAXFORMERS_CACHE") or os.path.expanduser("~/.cache/jaxformers")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "compiled"))
    for name in ("absl", "orbax", "jax._src.xla_bridge"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _run(argv: list[str]) -> int:
    if not argv:
        print(_overview(), end="", file=sys.stderr)
        return 2
    name, rest = argv[0], argv[1:]
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview(), end="")
        return 0
    if name in ("-V", "--version"):
        print(f"jaxformers {__version__}")
        return 0
    if name not in VERBS:
        kind = "option" if name.startswith("-") else "verb"
        hint = did_you_mean(name, [*VERBS, "help", "--help", "--version"])
        raise ConfigError(f"unknown {kind} {name}{hint or '; there are ' + ', '.join(VERBS)}")
    return _run_verb(name, rest)


def _run_verb(name: str, rest: list[str]) -> int:
    verb = VERBS[name]
    if {"-h", "--help"} & set(rest):
        print(_parser(name).format_help(), end="")
        if not verb.fields or rest[0] in ("-h", "--help"):
            return 0
    args, fields = _parse(name, rest)
    return getattr(cli_verbs, name)(args, fields) or 0


def _overview() -> str:
    return HELP.format(verbs="\n".join(f"  {n:10} {verb.summary}" for n, verb in VERBS.items()))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        message = message.removeprefix("argument ")
        missing = message.removeprefix("the following arguments are required: ")
        message = message if missing == message else f"{missing} is missing"
        raise ConfigError(f"{message} ({self.prog} --help tells more)")


def _parser(name: str, *, positionals: bool = True) -> argparse.ArgumentParser:
    verb = VERBS[name]
    options = " ".join(
        f"[{option}{' ' + spec['metavar'] if 'metavar' in spec else ''}]"
        for option, spec in verb.options
    )
    usage = ["jaxformers", name, *verb.positionals, options, "[--FIELD VALUE ...]" * verb.fields]
    parser = _Parser(
        prog=f"jaxformers {name}",
        usage=" ".join(filter(None, usage)),
        description=verb.text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    for option, spec in verb.options:
        parser.add_argument(option, **spec)
    for word in verb.positionals if positionals else ():
        many = "+" if word.endswith("...") else None
        parser.add_argument(word.rstrip(".").lower(), metavar=word, nargs=many)
    return parser


def _parse(name: str, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The verb's arguments, and the words that are fields of the experiment."""
    verb = VERBS[name]
    known = [option for option, _ in verb.options]
    if not verb.fields:
        args, extra = _parser(name).parse_known_args(words)
        if extra:
            what = "unknown option" if extra[0].startswith("-") else "unexpected argument"
            hint = did_you_mean(extra[0].split("=")[0], known)
            raise ConfigError(f"{what} {extra[0]}{hint} (jaxformers {name} --help tells more)")
        return args, []
    # A field's value must not be taken for the file, so the file comes before all fields.
    args, rest = _parser(name, positionals=False).parse_known_args(words)
    first = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    args = _parser(name).parse_args(rest[:first], namespace=args)
    args.known, args.verb = known, name
    return args, rest[first:]
