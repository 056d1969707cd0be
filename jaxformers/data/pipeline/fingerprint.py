"""What a run's batches depend on, kept with its checkpoints to refuse other data."""

from __future__ import annotations

from collections.abc import Mapping

WORDS = {
    "source": "training data",
    "pairs": "training pairs",
    "content": "content of the training data",
    "tokenizer": "tokenizer",
    "plan": "batch plan",
    "seed": "data seed",
}
HASHES = ("content", "tokenizer")
# A kept name says where the data lay: the same content elsewhere gives the same batches.
HARMLESS = ("source",)


def differences(saved: Mapping[str, str | int], now: Mapping[str, str | int]) -> list[str]:
    """What changed between two fingerprints, in words, most telling first; empty if nothing.

    Data that only moved (another path, the same content) is no difference.
    """
    names = [*WORDS, *sorted({*saved, *now} - set(WORDS))]
    changed = [name for name in names if saved.get(name) != now.get(name)]
    if "content" not in changed:
        changed = [name for name in changed if name not in HARMLESS]
    return [_sentence(name, saved.get(name), now.get(name)) for name in changed]


def _sentence(name: str, before: str | int | None, after: str | int | None) -> str:
    return f"{WORDS.get(name, name)}: {_shown(name, before)} then, {_shown(name, after)} now"


def _shown(name: str, value: str | int | None) -> str:
    if value is None:
        return "none"
    if name == "pairs":
        return f"{value:,}"
    return f"{str(value)[:12]}" if name in HASHES else str(value)
