"""One training step of the base Transformer, ours beside PyTorch's Hugging Face Marian, in one run.

    pip install -e .[bench]
    python benchmarks/train_step.py --shapes 8x64 8x128 --turns 5

Both sides train the same network (Marian's: biases in attention, its sinusoids, ReLU, post-norm)
in float32 with dropout 0.1, label smoothing 0.1 and Adam, on full rows of random tokens. Ours is
the compiled step that `jaxformers train` runs. The peer runs its fastest settings here: scaled
dot-product attention, fused Adam, gradients set to None. The two take turns.
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
    """A packed batch whose rows are one full example each."""
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
    """The base model with Marian's choices; the rest are an experiment's defaults."""
    model = TransformerConfig.base(VOCAB, attention_bias=True, positions="marian", zero_pad=False)
    task = Translation(model, BundledPairs(), batching=Packing(length, length, rows))
    return Experiment("benchmark", task, steps=100_000)


def our_step(experiment: Experiment, batch: dict[str, np.ndarray]) -> Run:
    """A call makes one step of the loop's own compiled function and waits for it."""
    mesh = make_mesh(experiment.mesh)
    model = experiment.task.module(experiment.execution(mesh))
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, abstract)
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract)

        state = jax.jit(lambda: init_state(experiment, model), out_shardings=where)()
        laid = put_batch(batch, mesh, 1)

    def run():
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = step(state, laid)
        jax.block_until_ready((state, metrics))

    return run


def peer_step(batch: dict[str, np.ndarray]) -> Run:
    """A call makes one step of Hugging Face's Marian."""
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
    # fused: one pass over each parameter, its moments and its gradient
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
    """Both steps at one shape: seconds, their ratio, and the share of the products' peak."""
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
    """The results as lines; above 1 a ratio is ours being faster."""
    lines = ["rows x length   ours min/median s   PyTorch min/median s   ratio   of peak GFLOP/s"]
    for r in rows:
        lines.append(
            f"{r['rows']:4d} x {r['length']:<6d}{r['ours_min_s']:13.2f} /{r['ours_median_s']:5.2f}"
            f"{r['peer_min_s']:17.2f} /{r['peer_median_s']:5.2f}"
            f"{r['ratio_min']:10.2f} /{r['ratio_median']:5.2f}"
            f"{r['share_of_peak']:7.0%} of {r['peak_gflops']:4.0f}"
        )
    return lines


def big_in_bfloat16(rows: int = 64, length: int = 256, turns: int = 10) -> dict:
    """Step time and MFU of the big model in bfloat16 on this machine's GPU."""
    base = base_experiment(rows, length)
    task = replace(base.task, model=TransformerConfig.big(VOCAB))
    experiment = replace(base, task=task, precision="bfloat16")
    run = our_step(experiment, random_batch(rows, length))
    found = frame.on_gpu(run, step_flops(experiment, experiment.task.batch_shapes()[0]), turns)
    return {
        "rows": rows,
        "length": length,
        "target_tokens_per_s": rows * length / found["step_s"],
    } | found


def parse_shape(text: str) -> Shape:
    """`8x64` as (8, 64)."""
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
