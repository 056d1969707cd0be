"""SQuAD results that runs are held against: "BERT", sections 4.2 and 4.3, tables 2 and 3."""

from __future__ import annotations

from dataclasses import dataclass

# System; exact match and F1 on the development set, then on the test set.
_ROWS = {
    "1.1": (
        ("Human", None, None, 82.3, 91.2),
        ("nlnet, ensemble", None, None, 86.0, 91.7),
        ("QANet, ensemble", None, None, 84.5, 90.5),
        ("BiDAF + ELMo, single", None, 85.6, None, 85.8),
        ("R.M. Reader, ensemble", 81.2, 87.9, 82.3, 88.5),
        ("BERT base, single", 80.8, 88.5, None, None),
        ("BERT large, single", 84.1, 90.9, None, None),
        ("BERT large, ensemble of 7", 85.8, 91.8, None, None),
        ("BERT large + TriviaQA, single", 84.2, 91.1, 85.1, 91.8),
        ("BERT large + TriviaQA, ensemble of 7", 86.2, 92.2, 87.4, 93.2),
    ),
    "2.0": (("BERT large, single", 78.7, 81.9, 80.0, 83.1),),
}


@dataclass(frozen=True)
class PublishedSquad:
    """A system's results on one set, in percent; None where not reported.

    Attributes:
        system: whose they are.
        version: of SQuAD, "1.1" or "2.0".
        split: "dev" or "test" (which only the makers of SQuAD have).
        exact, f1: as in our own results.
    """

    system: str
    version: str
    split: str
    exact: float | None
    f1: float | None


PUBLISHED_SQUAD: tuple[PublishedSquad, ...] = tuple(
    PublishedSquad(system, version, split, *values)
    for version, rows in _ROWS.items()
    for system, *numbers in rows
    for split, values in (("dev", numbers[:2]), ("test", numbers[2:]))
    if values != [None, None]
)
"""All rows."""


def published_squad(version: str, split: str) -> list[PublishedSquad]:
    """The published results on one set."""
    return [row for row in PUBLISHED_SQUAD if (row.version, row.split) == (version, split)]
