"""Plans all experiments on the paper's own pod and on one of today; prints the README's tables.

    python benchmarks/plans.py                      # all of them; what was planned before is kept
    python benchmarks/plans.py --only bert "b16 v3" # those with one of these words in file and pod
    python benchmarks/plans.py --seconds 200        # as many as begin within so many seconds

It needs libtpu (`pip install -e '.[tpu]'`), no TPU and no data. The first table is planned
with `--quick`, which compiles in full what is near to a chip's memory; the second one, whose times
are told, as the command does without it.
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
    """A plan that is shown: the experiment's file, the pod, why this pod, what makes it fit."""

    file: str
    topology: str
    why: str
    fsdp: int = 1
    parts: int = 1


ROWS = (
    Row("translation/wmt14_en_de_base", "v2:2x2", GPU),
    Row("translation/wmt14_en_de_base", "v6e:2x2", "today"),
    Row("translation/wmt14_en_de_big", "v2:2x2", GPU, fsdp=8, parts=2),
    Row("translation/wmt14_en_de_big", "v6e:2x2", "today"),
    Row("translation/wmt14_en_fr_base", "v2:2x2", GPU),
    Row("translation/wmt14_en_fr_base", "v6e:2x2", "today"),
    Row("translation/wmt14_en_fr_big", "v2:2x2", GPU, fsdp=8, parts=2),
    Row("translation/wmt14_en_fr_big", "v6e:2x2", "today"),
    Row("translation/demo", "v2:2x2", "two CPU cores"),
    Row("translation/demo", "v6e:1x1", "today"),
    Row("bert/pretrain_base", "v2:4x4", "the paper's"),
    Row("bert/pretrain_base", "v6e:2x4", "today"),
    Row("bert/pretrain_large", "v2:8x8", "the paper's", fsdp=8),
    Row("bert/pretrain_large", "v6e:4x4", "today", fsdp=4),
    Row("bert/pretrain_large_lamb", "v3:32x32", "LAMB's", parts=2),
    Row("bert/pretrain_large_lamb", "v6e:16x16", "today", parts=4),
    Row("bert/glue", "v2:2x2", "the paper's"),
    Row("bert/glue", "v6e:1x1", "today"),
    Row("bert/squad", "v2:2x2", "the paper's"),
    Row("bert/squad", "v6e:1x1", "today"),
    Row("bert/demo", "v2:2x2", "two CPU cores"),
    Row("bert/demo", "v6e:1x1", "today"),
    Row("vit/imagenet_b16", "v3:8x8", "the paper's kind"),
    Row("vit/imagenet_b16", "v6e:4x4", "today", parts=4),
    Row("vit/imagenet21k_b16", "v3:8x8", "the paper's kind"),
    Row("vit/imagenet21k_b16", "v6e:4x4", "today", parts=4),
    Row("vit/imagenet21k_l16", "v3:16x16", "the paper's kind"),
    Row("vit/imagenet21k_l16", "v6e:8x8", "today", parts=4),
    Row("vit/jft_h14", "v3:16x16", "the paper's kind"),
    Row("vit/jft_h14", "v6e:8x8", "today"),
    Row("vit/hybrid_r50_b16", "v3:8x8", "the paper's kind"),
    Row("vit/hybrid_r50_b16", "v6e:4x4", "today", parts=4),
    Row("vit/transfer", "v3:4x4", "the paper's kind"),
    Row("vit/transfer", "v6e:2x4", "today", parts=2),
    Row("vit/vtab", "v3:4x4", "the paper's kind", parts=4),
    Row("vit/vtab", "v6e:2x4", "today", parts=4),
    Row("vit/demo", "v2:2x2", "two CPU cores"),
    Row("vit/demo", "v6e:1x1", "today"),
    Row("mae/pretrain_base", "v3:8x8", GPU),
    Row("mae/pretrain_base", "v6e:4x4", "today", parts=4),
    Row("mae/pretrain_large", "v3:8x8", GPU),
    Row("mae/pretrain_large", "v6e:4x4", "today", parts=4),
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
    done = json.loads(args.results.read_text()) if args.results.exists() else {}
    began = time.monotonic()
    for row, effort in (*((r, "mixed") for r in GENERATIONS), *((r, "least") for r in ROWS)):
        wanted = not args.only or any(word in key(row) for word in args.only)
        if key(row) in done or not wanted or time.monotonic() - began > args.seconds:
            continue
        done[key(row)] = planned(row, effort)
        args.results.write_text(json.dumps(done, indent=1))
    print(table(ROWS, done))
    print(table(GENERATIONS, done, took=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", help="parts of a file's path and pod")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin none later")
    place = ROOT / "runs" / "plans.json"
    parser.add_argument("--results", type=Path, default=place, help="where results are kept")
    return parser.parse_args()


def key(row: Row) -> str:
    changes = (f"fsdp={row.fsdp}", f"parts={row.parts}")
    return " ".join((row.file, row.topology, *(c for c in changes if not c.endswith("=1"))))


def planned(row: Row, effort: Effort) -> dict:
    """The plan's JSON and the seconds it took."""
    experiment = load_experiment(ROOT / "experiments" / f"{row.file}.py")
    experiment = replace(experiment, accumulate=row.parts)
    mesh = None if row.fsdp == 1 else MeshConfig(fsdp=row.fsdp)
    print(key(row), end=" ", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as empty:  # what an earlier plan kept would take no time
        os.environ["JAXFORMERS_CACHE"] = empty
        try:
            made = planning.plan(experiment, row.topology, mesh=mesh, effort=effort)
            found = planning.to_json(made)
        except UserError as error:
            found = {"error": str(error)}
    found["took"] = time.monotonic() - began
    print(f"{found['took']:.0f} s", flush=True)
    return found


COLUMNS = ("experiment", "pod", "memory of a chip", "a step", "MFU", "chip-hours")


def table(rows: tuple[Row, ...], done: dict[str, dict], *, took: bool = False) -> str:
    """Markdown; the last column is the paper's cost, or with `took` the seconds of planning."""
    head = [*COLUMNS, "planned in" if took else "published"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        if (found := done.get(key(row))) is not None:
            last = f"{found['took']:.0f} s" if took else _published(found)
            lines.append([row.file, _pod(row), *_numbers(found), last])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _pod(row: Row) -> str:
    why = f" ({row.why})" if row.why not in ("", "today") else ""
    why += f", fsdp {row.fsdp}" * (row.fsdp > 1) + f", {row.parts} parts" * (row.parts > 1)
    return row.topology + why


def _numbers(found: dict) -> list[str]:
    if "error" in found:
        return [found["error"], "", "", ""]
    memory = found["memory"]
    needed = memory["needed"] and f"{memory['needed'] / 1e9:.1f} of {memory['chip'] / 1e9:.0f} GB"
    if not found["fits"]:
        return [f"does not fit: {needed or '?'}", "", "", ""]
    return [
        needed,
        _range(found["seconds"], 1e3, " ms"),
        _range(found["mfu"], 100, " %"),
        _range(found["chip_hours"], 1, ""),
    ]


def _published(found: dict) -> str:
    cost = found.get("published")
    return f"{cost['chip_hours']:,.0f} ({cost['hardware']})" if cost and cost["chip_hours"] else ""


def _range(ends: list[float], scale: float, unit: str) -> str:
    low, high = (
        f"{end * scale:,.0f}" if end * scale >= 10 else f"{end * scale:.2g}" for end in ends
    )
    return f"{low}-{high}{unit}"


if __name__ == "__main__":
    main()
