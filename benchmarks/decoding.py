"""Benchmarks beam search against Hugging Face Marian's `generate` with its key-value cache.

    pip install -e .[bench]
    python benchmarks/decoding.py                      batches of 1, 8 and 32 sentences
    python benchmarks/decoding.py --batch 8 --json decoding.json

Both run the base model in float32 with random weights and generate a fixed number of tokens (there
is no end of sentence). The two alternate; each time is the fastest call, encoder included, divided
by the number of generated tokens. "bound" is the peer's time divided by that of only the matrix
products of one step in JAX: the largest ratio that a decoder with these products could reach. The
last columns are the times of the matrix products in JAX and in PyTorch.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import frame
import jax
import jax.numpy as jnp
import numpy as np
import torch
from frame import Run, take_turns
from transformers import MarianConfig, MarianMTModel

from jaxformers.decoding import beam_search
from jaxformers.models import Transformer, TransformerConfig

WIDTH, FEED_FORWARD, LAYERS, HEADS = 512, 2048, 6, 8


def ours(vocab: int, source: np.ndarray, beams: int, tokens: int) -> Run:
    pad = vocab - 1
    # The end of sentence is banned, so that every sentence has the full number of tokens.
    config = TransformerConfig.base(
        vocab, attention_bias=True, positions="marian", activation="silu", logits_bias=True,
        pad_id=pad, start_id=pad, eos_id=pad, banned_ids=(pad,), zero_pad=False,
    )  # fmt: skip
    model = Transformer(config)
    variables = jax.jit(model.init)(jax.random.key(0), source[:1], source[:1])

    def run():
        result = beam_search(model, variables, source, None, tokens + 1, beams, 0.0)
        return np.asarray(result.ids)

    return run


def peer(vocab: int, source: np.ndarray, beams: int, tokens: int) -> Run:
    pad = vocab - 1
    config = MarianConfig(
        vocab_size=vocab, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
        encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, max_position_embeddings=512,
        encoder_ffn_dim=FEED_FORWARD, decoder_ffn_dim=FEED_FORWARD, activation_function="swish",
        scale_embedding=True, pad_token_id=pad, decoder_start_token_id=pad, eos_token_id=None,
        forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MarianMTModel(config).eval()
    model.generation_config.eos_token_id = model.generation_config.forced_eos_token_id = None
    ids = torch.from_numpy(source).long()

    def run():
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams,
                do_sample=False, length_penalty=0.0, max_new_tokens=tokens, use_cache=True,
            )  # fmt: skip
        return output.numpy()[:, 1:]

    return run


def step_weights(vocab: int) -> list[np.ndarray]:
    """Weights of one step: 6 square matrices and the feed-forward of each layer, and the logits."""
    rng, square = np.random.default_rng(0), (WIDTH, WIDTH)
    layer = [square] * 6 + [(WIDTH, FEED_FORWARD), (FEED_FORWARD, WIDTH)]
    shapes = layer * LAYERS + [(WIDTH, vocab)]
    return [rng.standard_normal(s, np.float32) / s[0] ** 0.5 for s in shapes]


def our_products(weights: list[np.ndarray], rows: int) -> Run:
    # The logits multiply by the transpose of the embedding table, which has a row per token.
    matrices = [*map(jnp.asarray, weights[:-1]), jnp.asarray(weights[-1].T.copy())]
    x = jnp.ones((rows, WIDTH))

    @jax.jit
    def step(x, matrices):
        for w in matrices[:-1]:
            x = x @ w
        return jax.lax.dot_general(x, matrices[-1], (((1,), (1,)), ((), ())))

    return lambda: step(x, matrices).block_until_ready()


def peer_products(weights: list[np.ndarray], rows: int) -> Run:
    matrices = [torch.from_numpy(w.T.copy()) for w in weights]  # as nn.Linear stores them
    x = torch.ones(rows, WIDTH)

    def run():
        y = x
        with torch.inference_mode():
            for w in matrices:
                y = torch.nn.functional.linear(y, w)
        return y

    return run


def fastest_ms(runs: dict[str, Run], turns: int) -> dict[str, float]:
    """Fastest time of each function in milliseconds."""
    return {name: 1e3 * min(seconds) for name, seconds in take_turns(runs, turns).items()}


def measure(args: argparse.Namespace, batch: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    source = rng.integers(1, args.vocab - 1, (batch, args.source)).astype(np.int32)
    arguments = (args.vocab, source, args.beams, args.tokens)
    search_ms = fastest_ms({"ours": ours(*arguments), "peer": peer(*arguments)}, args.turns)
    weights, rows = step_weights(args.vocab), batch * args.beams
    products = {"ours": our_products(weights, rows), "peer": peer_products(weights, rows)}
    products_ms = fastest_ms(products, 10 * args.turns)
    return {
        "batch": batch,
        "ours_ms": search_ms["ours"] / args.tokens,
        "peer_ms": search_ms["peer"] / args.tokens,
        "ratio": search_ms["peer"] / search_ms["ours"],
        "bound": search_ms["peer"] / args.tokens / products_ms["ours"],
        "our_products_ms": products_ms["ours"],
        "peer_products_ms": products_ms["peer"],
    }


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=37_000)
    parser.add_argument("--source", type=int, default=24, help="source tokens")
    parser.add_argument("--tokens", type=int, default=32, help="generated tokens")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(frame.cores())
    print("ms a step  batch    ours    peer   ratio   bound   products: ours    peer")
    rows = []
    for batch in args.batch:
        row = measure(args, batch)
        rows.append(row)
        print(
            f"{batch:16d}{row['ours_ms']:8.1f}{row['peer_ms']:8.1f}{row['ratio']:8.2f}"
            f"{row['bound']:8.2f}{row['our_products_ms']:17.1f}{row['peer_products_ms']:8.1f}",
            flush=True,
        )
    frame.keep(args.json, {"settings": vars(args) | {"json": None}, "rows": rows})


if __name__ == "__main__":
    main()
