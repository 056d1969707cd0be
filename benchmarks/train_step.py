"""Benchmarks a training step of the base Transformer against Hugging Face's Marian in PyTorch.

    pip install -e .[bench]
    python benchmarks/train_step.py --shapes 8x64 8x128 --turns 5

Both train the same network (Marian's: attention biases, its sinusoidal positions, ReLU, post-norm)
in float32 with dropout 0.1, label smoothing 0.1 and Adam, on full rows of random tokens. Ours is
the compiled step of `jaxformers train`. The peer uses the settings that are fastest on this
machine: scaled dot-product attention, fused Adam, gradients set to None. The two alternate in one
process.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import frame
import jax
import numpy as np
from frame import Run

from jaxformers.data import BundledPairs, Packing
from jaxformers.models import TransformerConfig
from jaxformers.sharding import make_mesh, put_batch
from jaxformers.tasks import Translation
from jaxformers.training import Experiment
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import jit_step, step_flops

VOCAB = 37_000
Shape = tuple[int, int]  # rows, and tokens of both source and target


def random_batch(rows: int, length: int, vocab: int = VOCAB) -> dict[str, np.ndarray]:
    """A packed batch with one example of the full length in each row."""
    rng = np.random.default_rng(0)
    source, target = (rng.integers(3, vocab, (rows, length), np.int32) for _ in range(2))
    ones = np.ones((rows, length), np.int32)
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length)).copy()
    return {
        "source_ids": source,
        "source_segments": ones,
        "source_positions": positions,
        "target_in_ids": np.roll(target, 1, axis=1),
        "target_out_ids": target,
        "target_segments": ones,
        "target_positions": positions,
    }


def base_experiment(rows: int, length: int) -> Experiment:
    """The base model with Marian's settings; everything else is an experiment's default."""
    model = TransformerConfig.base(VOCAB, attention_bias=True, positions="marian", zero_pad=False)
    task = Translation(model, BundledPairs(), batching=Packing(length, length, rows))
    return Experiment("benchmark", task, steps=100_000)


def our_step(experiment: Experiment, batch: dict[str, np.ndarray]) -> Run:
    """A function that runs one compiled step of the training loop and waits for its result."""
    mesh = make_mesh(experiment.mesh)
    model = experiment.task.module(experiment.execution(mesh))
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, abstract)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

        state = jax.jit(lambda: init_state(experiment, model), out_shardings=shardings)()
        device_batch = put_batch(batch, mesh, 1)

    def run():
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = step(state, device_batch)
        jax.block_until_ready((state, metrics))

    return run


def peer_step(batch: dict[str, np.ndarray]) -> Run:
    """A function that runs one training step of Hugging Face's Marian."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    torch.set_num_threads(frame.cores())
    config = MarianConfig(
        vocab_size=VOCAB, d_model=512, encoder_layers=6, decoder_layers=6,
        encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048,
        decoder_ffn_dim=2048, activation_function="relu", dropout=0.1, attention_dropout=0.0,
        activation_dropout=0.0, scale_embedding=True, max_position_embeddings=1024,
        pad_token_id=0, eos_token_id=1, forced_eos_token_id=1, decoder_start_token_id=0,
        use_cache=False, attn_implementation="sdpa",
    )  # fmt: skip
    model = MarianMTModel(config).train()
    # Fused: one kernel updates a parameter and its moments.
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, (0.9, 0.98), 1e-9, fused=True)
    source, inputs, labels = (
        torch.from_numpy(batch[name]).long()
        for name in ("source_ids", "target_in_ids", "target_out_ids")
    )

    def run():
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=source, decoder_input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1
        )
        loss.backward()
        optimizer.step()

    return run


def compare(shape: Shape, turns: int) -> dict:
    """Times both steps at one shape: seconds, their ratio, and our share of the machine's peak."""
    batch, experiment = random_batch(*shape), base_experiment(*shape)
    runs = {"ours": our_step(experiment, batch), "peer": peer_step(batch)}
    seconds, peak = frame.beside_product(runs, turns)
    flops = step_flops(experiment, experiment.task.batch_shapes()[0])
    result = {"rows": shape[0], "length": shape[1], "gflop": flops / 1e9, "peak_gflops": peak / 1e9}
    for name in ("ours", "peer"):
        result[f"{name}_min_s"] = min(seconds[name])
        result[f"{name}_median_s"] = statistics.median(seconds[name])
    for kind in ("min", "median"):
        result[f"ratio_{kind}"] = result[f"peer_{kind}_s"] / result[f"ours_{kind}_s"]
    return result | {"share_of_peak": flops / result["ours_min_s"] / peak}


def table(rows: list[dict]) -> list[str]:
    """The results as lines of a table; at a ratio above 1 ours is faster."""
    lines = ["rows x length   ours min/median s   PyTorch min/median s   ratio   of peak GFLOP/s"]
    for row in rows:
        lines.append(
            f"{row['rows']:4d} x {row['length']:<6d}"
            f"{row['ours_min_s']:13.2f} /{row['ours_median_s']:5.2f}"
            f"{row['peer_min_s']:17.2f} /{row['peer_median_s']:5.2f}"
            f"{row['ratio_min']:10.2f} /{row['ratio_median']:5.2f}"
            f"{row['share_of_peak']:7.0%} of {row['peak_gflops']:4.0f}"
        )
    return lines


def big_in_bfloat16(rows: int = 64, length: int = 256, turns: int = 10) -> dict:
    """Step time and MFU of the big model in bfloat16 on this machine's GPU."""
    base = base_experiment(rows, length)
    task = replace(base.task, model=TransformerConfig.big(VOCAB))
    experiment = replace(base, task=task, precision="bfloat16")
    run = our_step(experiment, random_batch(rows, length))
    metrics = frame.on_gpu(run, step_flops(experiment, experiment.task.batch_shapes()[0]), turns)
    return {
        "rows": rows,
        "length": length,
        "target_tokens_per_s": rows * length / metrics["step_s"],
    } | metrics


def parse_shape(text: str) -> Shape:
    """Parses `8x64` as (8, 64)."""
    rows, length = map(int, text.split("x"))
    return rows, length


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--shapes", type=parse_shape, nargs="+", default=[(8, 64), (8, 128)])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="only the big model, in bfloat16")
    args = parser.parse_args()
    if args.gpu:
        frame.need_gpu()
        results = [big_in_bfloat16()]
        print(json.dumps(results[0]))
    else:
        results = [compare(shape, args.turns) for shape in args.shapes]
        print("\n".join(table(results)))
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
