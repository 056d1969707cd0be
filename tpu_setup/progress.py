"""Prints the progress of a run in one line, from its `status.json` on standard input.

`python3 progress.py` prints the line; `python3 progress.py step` only the step, or -1.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

LIMIT = 4_000_000  # bytes; a pod of 2,000 hosts writes a tenth of it
SILENT = 120  # seconds without a heartbeat after which a host is reported


def plain(text: Any) -> str:
    """The text without control characters, which could move a terminal's cursor."""
    return "".join(c for c in str(text)[:80] if c.isprintable())


def ago(then: float, now: float) -> str:
    """`42 s ago`, `3 min ago`, `2.5 h ago`."""
    seconds = max(0, now - then)
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.1f} h ago"


def line(status: dict[str, Any], now: float) -> str:
    """`step 1200 of 5000, loss 2.31, goodput 93 %, running, 12 s ago`, and silent hosts."""
    fields = [
        f"step {int(status['step'])} of {int(status['steps'])}",
        f"loss {float(status['loss']):.4g}",
        f"goodput {100 * float(status['goodput']):.0f} %",
        f"{plain(status['state'])}, {ago(float(status['time']), now)}",
    ]
    if status["state"] == "running":
        fields += [
            f"host {plain(host['host'])} silent since step {int(host['step'])}"
            for host in status.get("hosts", [])
            if float(status["time"]) - float(host["time"]) > SILENT
        ]
    return ", ".join(fields)


def main() -> int:
    """Prints the line or the step; returns 1 where the file is missing or malformed."""
    only_step = sys.argv[1:] == ["step"]
    try:
        status = json.loads(sys.stdin.read(LIMIT))
        print(int(status["step"]) if only_step else line(status, time.time()))
    except (ValueError, TypeError, KeyError, AttributeError):
        print("-1" if only_step else "there is no status.json yet, or it is damaged")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
