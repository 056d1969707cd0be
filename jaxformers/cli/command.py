"""The `jaxformers` command: parse, call, print.

Each verb is a row of `verb_table.VERBS`, which names its function. Nothing heavy is imported before
the command line is parsed, so that `--help` and a mistyped verb are answered at once. A user's
mistake is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import takewhile

from jaxformers import __version__
from jaxformers.allocator import cpu_alone, keep_freed_memory
from jaxformers.cli.verb_table import VERBS
from jaxformers.errors import ConfigError, UserError, did_you_mean

HELP = """usage: jaxformers VERB ...

The landmark Transformers in JAX. One experiment file is one run of one paper.

verbs:
{verbs}
  help            the help of a verb: jaxformers help train

A first session:
  jaxformers demo                                       minutes on two cores
  echo "Click the button." | jaxformers translate runs/demo
  jaxformers describe experiments/translation/demo.py   the network and its parameters
  jaxformers train experiments/translation/demo.py --rehearse     any run, in seconds
"""
USAGE_WIDTH = 90


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
    name, words = argv[0], argv[1:]
    if name == "help" and words:
        name, words = words[0], ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview(), end="")
        return 0
    if name in ("-V", "--version"):
        print(f"jaxformers {__version__}")
        return 0
    if name not in VERBS:
        kind = "option" if name.startswith("-") else "verb"
        alternatives = (
            "; there are " + ", ".join(VERBS) if kind == "verb" else "; --help tells more"
        )
        hint = did_you_mean(name, [*VERBS, "help", "--help", "--version"])
        raise ConfigError(f"unknown {kind} {name}{hint or alternatives}")
    return _run_verb(name, words)


def _run_verb(name: str, words: list[str]) -> int:
    verb = VERBS[name]
    if {"-h", "--help"} & set(words):
        print(_parser(name).format_help(), end="")
        if not verb.fields or words[0] in ("-h", "--help"):
            return 0
    args, fields = _parse(name, words)
    args.words = words
    keep_freed_memory(cpu_alone())  # before JAX starts
    with _own_warnings_as_lines():
        return verb.run(args, fields) or 0


@contextmanager
def _own_warnings_as_lines() -> Iterator[None]:
    """Prints each warning of this library as one line on standard error."""
    package = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(message, category, filename, *details, **options):
            if filename.startswith(package):
                print(f"jaxformers: {message}", file=sys.stderr)
            else:
                show(message, category, filename, *details, **options)

        warnings.showwarning = show_line
        yield


def _overview() -> str:
    return HELP.format(verbs="\n".join(f"  {n:15} {verb.summary}" for n, verb in VERBS.items()))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        message = message.removeprefix("argument ")
        missing = message.removeprefix("the following arguments are required: ")
        message = message if missing == message else f"{missing} is missing"
        raise ConfigError(f"{message} ({self.prog} --help tells more)")


def _parser(
    name: str, *, positionals: bool = True, required: bool = True
) -> argparse.ArgumentParser:
    """The verb's parser; without positionals, or with nothing required, for a first look."""
    verb = VERBS[name]
    parser = _Parser(
        prog=f"jaxformers {name}",
        usage=_usage(name),
        description=verb.text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    for option, spec in verb.options:
        parser.add_argument(option, **(spec if required else spec | {"required": False}))
    for word in verb.positionals if positionals else ():
        many = "+" if word.endswith("...") else None
        parser.add_argument(word.rstrip(".").lower(), metavar=word, nargs=many)
    return parser


def _usage(name: str) -> str:
    """The verb with what it takes, in lines of a terminal's width."""
    verb = VERBS[name]
    words = [f"jaxformers {name}", *verb.positionals]
    for option, spec in verb.options:
        text = f"{option}{_values(spec)}"
        words.append(text if spec.get("required") else f"[{text}]")
    words += ["[--FIELD VALUE ...]"] * verb.fields
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > USAGE_WIDTH:
            lines.append("      ")
        lines[-1] += f" {word}"
    return "\n".join(lines).strip()


def _values(spec: dict) -> str:
    """What follows an option, for its help."""
    words, many = spec.get("metavar", ()), " ..." if spec.get("nargs") == "+" else ""
    return "".join(f" {word}" for word in ([words] if isinstance(words, str) else words)) + many


def _parse(name: str, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The verb's arguments, and the words that are fields of the experiment."""
    verb = VERBS[name]
    option_names = [option for option, _ in verb.options]
    if not verb.fields:
        # A mistyped option is named as such before what it leaves missing.
        _, unparsed = _parser(name, positionals=False, required=False).parse_known_args(words)
        options = [word for word in takewhile("--".__ne__, unparsed) if _is_option(word)]
        _refuse(name, options, "unknown option")
        args, extra = _parser(name).parse_known_args(words)
        _refuse(name, extra, "unexpected argument")
        return args, []
    # A field's value must not be taken for the file, so the file comes before all fields.
    args, unparsed = _parser(name, positionals=False).parse_known_args(words)
    first = next((i for i, word in enumerate(unparsed) if word.startswith("-")), len(unparsed))
    if (
        first == 0
        and unparsed
        and get_close_matches(unparsed[0].split("=")[0], option_names, cutoff=0.8)
    ):
        _refuse(name, unparsed, "unknown option")
    args = _parser(name).parse_args(unparsed[:first], namespace=args)
    args.known, args.verb = option_names, name
    return args, unparsed[first:]


def _is_option(word: str) -> bool:
    """As argparse has it: numbers below 0 and texts with spaces are values."""
    return re.match(r"-(?!\d*\.?\d+$)[^ ]+$", word) is not None


def _refuse(name: str, words: list[str], what: str) -> None:
    """Raises ConfigError for the first of these words, if there is one."""
    if words:
        hint = did_you_mean(words[0].split("=")[0], [option for option, _ in VERBS[name].options])
        raise ConfigError(f"{what} {words[0]}{hint} (jaxformers {name} --help tells more)")
