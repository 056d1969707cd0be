"""Class names and prompt templates of data sets, matched to the data's labels by name.

A file is a JSON object: `classes` is a list of names, or of lists [name, label, ...] where the data
spells a class otherwise; `templates` is a list of texts with `{}` for the name, or an object of
such lists by name; `metric`, if stated, is `accuracy` or `mean_per_class`.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxformers.errors import ConfigError, DataError, did_you_mean, printable
from jaxformers.regular_files import check_regular

BUNDLED = Path(__file__).parent / "bundled"
FIELD = "{}"
PUBLISHED = "published"
METRICS = ("accuracy", "mean_per_class")
LARGEST_FILE = 16 * 2**20  # bytes
NAMES_IN_MESSAGE = 3


@dataclass(frozen=True)
class ClassPrompts:
    """Class names of a data set, and the templates that make prompts of them.

    Attributes:
        source: name of the data set, or path of the file.
        names: one for each class; a name may occur again.
        labels: of each class, further spellings of it in the data.
        templates: texts with `{}` for the name, by the name of their set.
        metric: what papers report of this data set.
    """

    source: str
    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    templates: dict[str, tuple[str, ...]]
    metric: Literal["accuracy", "mean_per_class"] = "accuracy"

    def names_for(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The class name of each of the data's labels, in the order of the labels.

        Labels match by name, never by position: as they are spelled, else without regard to case
        and to what is no letter or digit. The data may have fewer classes than the file.

        Args:
            labels: `class_names` of the data.

        Raises:
            DataError: no labels, a label that matches no class or classes of different names, or
                more labels of a class than classes of that name.
        """
        if not labels:
            raise DataError(
                f"the data has no class names to match with those of {self.source}: give the names "
                "in the order of its labels"
            )
        exact, normalised = self._index(str), self._index(normalise)
        matches = [exact.get(label) or normalised.get(normalise(label), ()) for label in labels]
        self._check(labels, matches)
        return tuple(next(iter(names)) for names in matches)

    def template_set(self, name: str = PUBLISHED) -> tuple[str, ...]:
        """The templates of that set; raises ConfigError where there is no such set."""
        if name not in self.templates:
            hint = did_you_mean(name, list(self.templates))
            raise ConfigError(
                f"{self.source} has no templates {name!r}, but {', '.join(self.templates)}{hint}"
            )
        return self.templates[name]

    def _index(self, key) -> dict[str, set[str]]:
        """The names of the classes by the key of their names and labels."""
        index: dict[str, set[str]] = {}
        for name, labels in zip(self.names, self.labels, strict=True):
            for spelling in (name, *labels):
                index.setdefault(key(spelling), set()).add(name)
        return index

    def _check(self, labels: Sequence[str], matches: Sequence[set[str]]) -> None:
        """Refuses labels without a class, and labels of several classes."""
        unmatched = [label for label, names in zip(labels, matches, strict=True) if len(names) != 1]
        if unmatched:
            shown = ", ".join(repr(printable(label)) for label in unmatched[:NAMES_IN_MESSAGE])
            more = " ..." if len(unmatched) > NAMES_IN_MESSAGE else ""
            raise DataError(
                f"{len(unmatched)} of the data's {len(labels)} class names match no class of "
                f"{self.source}, or several: {shown}{more}"
                f"{did_you_mean(unmatched[0], self.names)}; add them to a file of class names"
            )
        counts, available = Counter(name for (name,) in matches), Counter(self.names)
        for name, count in counts.items():
            if count > available[name]:
                spellings = [
                    label for label, names in zip(labels, matches, strict=True) if name in names
                ]
                raise DataError(
                    f"the data's class names {', '.join(map(repr, spellings))} all match "
                    f"{name!r} of {self.source}: rename them"
                )


def bundled_prompts() -> list[str]:
    """Names of the data sets whose prompts are shipped."""
    return sorted(path.stem for path in BUNDLED.glob("*.json"))


def load_class_prompts(name_or_path: str | os.PathLike) -> ClassPrompts:
    """Loads the class names and templates of a data set.

    Args:
        name_or_path: a name of `bundled_prompts()`, by which TFDS calls the data set (a version or
            configuration behind it is ignored), or the path of a JSON file.

    Raises:
        ConfigError: neither a known name nor a JSON file's path.
        DataError: a file that cannot be read or is malformed.
    """
    name = os.fspath(name_or_path)
    dataset = re.split("[:/]", name)[0]
    if not name.endswith(".json") and dataset in bundled_prompts():
        return _read(BUNDLED / f"{dataset}.json", dataset)
    if not name.endswith(".json"):
        raise ConfigError(
            f"no class names of {name!r} are shipped{did_you_mean(name, bundled_prompts())}; there "
            f"are those of {', '.join(bundled_prompts())}, or give a .json file"
        )
    return _read(Path(name).expanduser(), name)


def normalise(text: str) -> str:
    """Lower-case letters and digits, a space between words."""
    text = unicodedata.normalize("NFKC", text).casefold()
    # A name of symbols alone stays, else all such names would be equal.
    return " ".join(re.sub(r"[\W_]+", " ", text).split()) or text.strip()


def _read(path: Path, source: str) -> ClassPrompts:
    check_regular(path, DataError)
    try:
        size = path.stat().st_size
        content = json.loads(path.read_bytes()) if size <= LARGEST_FILE else None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not valid JSON") from None
    if not isinstance(content, dict):
        raise DataError(f'{path} must be a JSON object of at most 16 MiB with a list "classes"')
    classes = content.get("classes")
    if not isinstance(classes, list) or not classes or not all(map(_is_class, classes)):
        raise DataError(
            f'{path}: "classes" must be a list of names, or of lists [name, label, ...]'
        )
    metric = content.get("metric", METRICS[0])
    if metric not in METRICS:
        raise DataError(f'{path}: "metric" must be {" or ".join(METRICS)}')
    rows = [(entry,) if isinstance(entry, str) else tuple(entry) for entry in classes]
    return ClassPrompts(
        source,
        tuple(row[0] for row in rows),
        tuple(row[1:] for row in rows),
        _templates(path, content.get("templates")),
        metric,
    )


def _templates(path: Path, content: Any) -> dict[str, tuple[str, ...]]:
    """Sets of templates by name; a list is the set `published`."""
    sets = {PUBLISHED: content} if isinstance(content, list) else content
    if not isinstance(sets, dict) or not sets:
        raise DataError(f'{path}: "templates" must be a list of texts, or an object of such lists')
    for name, templates in sets.items():
        texts = isinstance(templates, list) and all(isinstance(text, str) for text in templates)
        if not texts or not templates or not all(FIELD in text for text in templates):
            raise DataError(
                f"{path}: templates {printable(name)!r} must be a list of texts with {FIELD} where "
                "the name stands"
            )
    return {name: tuple(templates) for name, templates in sets.items()}


def _is_class(entry: Any) -> bool:
    names = [entry] if isinstance(entry, str) else entry
    return isinstance(names, list) and bool(names) and all(_is_name(name) for name in names)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip())
