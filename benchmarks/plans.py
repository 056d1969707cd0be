"""Plans every experiment on the paper's pod and on a current one; prints docs/plans.md's tables.

    python benchmarks/plans.py                      # all plans; finished ones are not repeated
    python benchmarks/plans.py --only bert "b16 v3" # plans whose file and pod contain a substring
    python benchmarks/plans.py --seconds 200        # starts no plan after 200 seconds

It needs libtpu (`pip install -e '.[tpu]'`), but no TPU and no data. The first table is planned as
with `--quick`, which compiles with full effort only if the memory is close to the chip's limit. The
second table, which reports the planning times, is planned as without `--quick`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax

from jaxformers import planning
from jaxformers.errors import UserError
from jaxformers.planning.program import Effort
from jaxformers.sharding import MeshConfig
from jaxformers.training.config.experiment_files import load_experiment

ROOT = Path(__file__).resolve().parents[1]
GPU = "its GPUs' nearest in peak"


class Row(NamedTuple):
    """A row of a table: the experiment's file, the pod, why this pod, and what makes it fit."""

    file: str
    topology: str
    why: str
    fsdp: int = 1
    accumulate: int = 1


ROWS = (
    Row("translation/wmt14_en_de_base", "v2:2x2", GPU),
    Row("translation/wmt14_en_de_base", "v6e:2x2", "today"),
    Row("translation/wmt14_en_de_big", "v2:2x2", GPU, fsdp=8, accumulate=2),
    Row("translation/wmt14_en_de_big", "v6e:2x2", "today"),
    Row("translation/wmt14_en_fr_base", "v2:2x2", GPU),
    Row("translation/wmt14_en_fr_base", "v6e:2x2", "today"),
    Row("translation/wmt14_en_fr_big", "v2:2x2", GPU, fsdp=8, accumulate=2),
    Row("translation/wmt14_en_fr_big", "v6e:2x2", "today"),
    Row("translation/demo", "v2:2x2", "two CPU cores"),
    Row("translation/demo", "v6e:1x1", "today"),
    Row("bert/pretrain_base", "v2:4x4", "the paper's"),
    Row("bert/pretrain_base", "v6e:2x4", "today"),
    Row("bert/pretrain_large", "v2:8x8", "the paper's", fsdp=8),
    Row("bert/pretrain_large", "v6e:4x4", "today", fsdp=4),
    Row("bert/pretrain_large_lamb", "v3:32x32", "LAMB's", accumulate=2),
    Row("bert/pretrain_large_lamb", "v6e:16x16", "today", accumulate=4),
    Row("bert/glue", "v2:2x2", "the paper's"),
    Row("bert/glue", "v6e:1x1", "today"),
    Row("bert/squad", "v2:2x2", "the paper's"),
    Row("bert/squad", "v6e:1x1", "today"),
    Row("bert/demo", "v2:2x2", "two CPU cores"),
    Row("bert/demo", "v6e:1x1", "today"),
    Row("vit/imagenet_b16", "v3:8x8", "the paper's kind"),
    Row("vit/imagenet_b16", "v6e:4x4", "today", accumulate=4),
    Row("vit/imagenet21k_b16", "v3:8x8", "the paper's kind"),
    Row("vit/imagenet21k_b16", "v6e:4x4", "today", accumulate=4),
    Row("vit/imagenet21k_l16", "v3:16x16", "the paper's kind"),
    Row("vit/imagenet21k_l16", "v6e:8x8", "today", accumulate=4),
    Row("vit/jft_h14", "v3:16x16", "the paper's kind"),
    Row("vit/jft_h14", "v6e:8x8", "today"),
    Row("vit/hybrid_r50_b16", "v3:8x8", "the paper's kind"),
    Row("vit/hybrid_r50_b16", "v6e:4x4", "today", accumulate=4),
    Row("vit/transfer", "v3:4x4", "the paper's kind"),
    Row("vit/transfer", "v6e:2x4", "today", accumulate=2),
    Row("vit/vtab", "v3:4x4", "the paper's kind", accumulate=4),
    Row("vit/vtab", "v6e:2x4", "today", accumulate=4),
    Row("vit/demo", "v2:2x2", "two CPU cores"),
    Row("vit/demo", "v6e:1x1", "today"),
    Row("mae/pretrain_base", "v3:8x8", GPU),
    Row("mae/pretrain_base", "v6e:4x4", "today", accumulate=4),
    Row("mae/pretrain_large", "v3:8x8", GPU),
    Row("mae/pretrain_large", "v6e:4x4", "today", accumulate=4),
    Row("mae/finetune", "v3:8x8", GPU),
    Row("mae/finetune", "v6e:4x4", "today"),
    Row("mae/linear_probe", "v3:8x8", GPU),
    Row("mae/linear_probe", "v6e:4x4", "today"),
    Row("mae/demo", "v2:2x2", "two CPU cores"),
    Row("mae/demo", "v6e:1x1", "today"),
    Row("resnet/imagenet_r50", "v2:4x4", GPU),
    Row("resnet/imagenet_r50", "v6e:2x4", "today"),
    Row("resnet/bit_i21k_r152x4", "v3:16x16", "the paper's kind"),
    Row("resnet/bit_i21k_r152x4", "v6e:8x8", "today"),
    Row("resnet/pets_resnet34", "v2:2x2", GPU),
    Row("resnet/pets_resnet34", "v6e:1x1", "today"),
    Row("resnet/demo", "v2:2x2", "two CPU cores"),
    Row("resnet/demo", "v6e:1x1", "today"),
)
# Three models on every generation, from 8 to 256 chips.
GENERATIONS = (
    *(
        Row("translation/wmt14_en_de_big", topology, "")
        for topology in ("v3:2x2", "v4:2x2x2", "v5e:2x4", "v5p:2x2x2", "v6e:2x4")
    ),
    *(
        Row("bert/pretrain_large", topology, "")
        for topology in ("v3:4x8", "v4:2x4x4", "v5e:8x8", "v5p:2x2x4")
    ),
    Row("bert/pretrain_large", "v6e:4x4", "", fsdp=4),
    *(
        Row("vit/jft_h14", topology, "")
        for topology in ("v3:16x16", "v4:4x4x4", "v5p:4x4x4", "v6e:8x8")
    ),
    Row("vit/jft_h14", "v5e:16x16", "", fsdp=4),
)


def main() -> None:
    args = _arguments()
    jax.config.update("jax_platforms", "cpu")
    args.results.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    start = time.monotonic()
    for row, effort in (*((r, "mixed") for r in GENERATIONS), *((r, "least") for r in ROWS)):
        selected = not args.only or any(word in key(row) for word in args.only)
        if key(row) in results or not selected or time.monotonic() - start > args.seconds:
            continue
        results[key(row)] = make_plan(row, effort)
        args.results.write_text(json.dumps(results, indent=1))
    print(table(ROWS, results))
    print(table(GENERATIONS, results, show_seconds=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", help="substrings of a plan's file and pod")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no plan after this time"
    )
    default = ROOT / "runs" / "plans.json"
    parser.add_argument("--results", type=Path, default=default, help="JSON file of the results")
    return parser.parse_args()


def key(row: Row) -> str:
    changes = (f"fsdp={row.fsdp}", f"parts={row.accumulate}")
    return " ".join((row.file, row.topology, *(c for c in changes if not c.endswith("=1"))))


def make_plan(row: Row, effort: Effort) -> dict:
    """The plan as JSON, with the seconds that planning took."""
    experiment = load_experiment(ROOT / "experiments" / f"{row.file}.py")
    experiment = replace(experiment, accumulate=row.accumulate)
    mesh = None if row.fsdp == 1 else MeshConfig(fsdp=row.fsdp)
    print(key(row), end=" ", flush=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as empty:  # a cached plan would take no time
        os.environ["JAXFORMERS_CACHE"] = empty
        try:
            plan = planning.plan(experiment, row.topology, mesh=mesh, effort=effort)
            result = planning.to_json(plan)
        except UserError as error:
            result = {"error": str(error)}
    result["took"] = time.monotonic() - start
    print(f"{result['took']:.0f} s", flush=True)
    return result


COLUMNS = ("experiment", "pod", "memory of a chip", "a step", "MFU", "chip-hours")


def table(rows: tuple[Row, ...], results: dict[str, dict], *, show_seconds: bool = False) -> str:
    """Markdown; the last column is the published cost, or the planning time if `show_seconds`."""
    head = [*COLUMNS, "planned in" if show_seconds else "published"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if (result := results.get(key(row))) is not None:
            last = f"{result['took']:.0f} s" if show_seconds else _published(result)
            lines.append([row.file, _pod(row), *_numbers(result), last])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _pod(row: Row) -> str:
    why = f" ({row.why})" if row.why not in ("", "today") else ""
    why += f", fsdp {row.fsdp}" * (row.fsdp > 1) + (
        f", {row.accumulate} parts" * (row.accumulate > 1)
    )
    return row.topology + why


def _numbers(result: dict) -> list[str]:
    if "error" in result:
        return [result["error"], "", "", ""]
    memory = result["memory"]
    needed = memory["needed"] and f"{memory['needed'] / 1e9:.1f} of {memory['chip'] / 1e9:.0f} GB"
    if not result["fits"]:
        return [f"does not fit: {needed or '?'}", "", "", ""]
    return [
        needed,
        _range(result["seconds"], 1e3, " ms"),
        _range(result["mfu"], 100, " %"),
        _range(result["chip_hours"], 1, ""),
    ]


def _published(result: dict) -> str:
    cost = result.get("published")
    return f"{cost['chip_hours']:,.0f} ({cost['hardware']})" if cost and cost["chip_hours"] else ""


def _range(bounds: list[float], scale: float, unit: str) -> str:
    low, high = (
        f"{bound * scale:,.0f}" if bound * scale >= 10 else f"{bound * scale:.2g}"
        for bound in bounds
    )
    return f"{low}-{high}{unit}"


if __name__ == "__main__":
    main()
