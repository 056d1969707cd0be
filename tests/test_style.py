"""The style that can be counted: names that say what they hold, comments where the code is hard.

`python tests/test_style.py` prints the counts, room by room.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxformers"

# Words that say nothing of what a variable holds.
VAGUE_NAMES = frozenset(
    """
    each found part parts place places kept known made wanted whole shown said told asked given
    rest other others one seen taken judged written placed piece pieces
    """.split()  # noqa: SIM905
)
# Percent of assignments.
MOST_VAGUE = 1.0
# Where the code is hard: comments for every 100 statements, at least. The aim is 6 in each room.
LEAST_COMMENTS = {
    "layers": 6,
    "models": 6,
    "decoding": 6,
    "interpret": 6,
    "planning": 6,
    "costs": 6,
    "sharding": 6,
}


def assigned_names(path: Path) -> list[str]:
    """Every local name and parameter that a file assigns, repeated as often as it does."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    stored = [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    return stored + [n.arg for n in nodes if isinstance(n, ast.arg)]


def num_comments(path: Path) -> int:
    """Comment lines, without those that speak to a tool (`# noqa`, `# fmt: skip`, `# type:`)."""
    with path.open("rb") as file:
        tokens = [t.string for t in tokenize.tokenize(file.readline) if t.type == tokenize.COMMENT]
    return sum(not text.startswith(("# noqa", "# fmt:", "# type:")) for text in tokens)


def num_statements(path: Path) -> int:
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(path.read_text())))


def vague_share(files: list[Path]) -> float:
    """Percentage of assignments whose name is one of VAGUE_NAMES."""
    counts = Counter(name for path in files for name in assigned_names(path))
    return 100 * sum(counts[name] for name in VAGUE_NAMES) / max(counts.total(), 1)


def comments_per_100(files: list[Path]) -> float:
    return 100 * sum(map(num_comments, files)) / max(sum(map(num_statements, files)), 1)


@pytest.mark.parametrize("folder", ["jaxformers", "experiments", "benchmarks", "tests"])
def test_names_say_what_they_hold(folder):
    assert vague_share(sorted((ROOT / folder).rglob("*.py"))) <= MOST_VAGUE


@pytest.mark.parametrize("room", LEAST_COMMENTS)
def test_hard_code_is_commented(room):
    assert comments_per_100(sorted((PACKAGE / room).rglob("*.py"))) >= LEAST_COMMENTS[room]


def main() -> None:
    print(f"{'room':15} {'vague names, %':>15} {'comments per 100 statements':>28}")
    for room in sorted(path for path in PACKAGE.iterdir() if path.is_dir() and path.suffix == ""):
        if files := sorted(room.rglob("*.py")):
            print(f"{room.name:15} {vague_share(files):15.2f} {comments_per_100(files):28.1f}")
    files = sorted(PACKAGE.rglob("*.py"))
    print(f"{'all':15} {vague_share(files):15.2f} {comments_per_100(files):28.1f}")


if __name__ == "__main__":
    sys.exit(main())
