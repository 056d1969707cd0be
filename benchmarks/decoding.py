"""Beam search beside Hugging Face Marian's `generate` with its key-value cache, in one run.

    pip install -e .[bench]
    python benchmarks/decoding.py                      batches of 1, 8 and 32 sentences
    python benchmarks/decoding.py --batch 8 --json decoding.json

Base size, float32, random weights, a fixed number of tokens (no end of sentence). The two take
turns, and each time is the least of the turns, the encoder included, over the tokens generated.
The bound is the peer's time over that of the matrix products of a step alone, done plainly in JAX:
no decoder with these products could be ahead by more. The peer's own products stand beside it.
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
    # The end of sentence is a banned token, so every sentence takes all its tokens.
    config = TransformerConfig.base(
        vocab, attention_bias=True, positions="marian", activation="silu", logits_bias=True,
        pad_id=pad, start_id=pad, eos_id=pad, banned_ids=(pad,), zero_pad=False,
    )  # fmt: skip
    model = Transformer(config)
    variables = jax.jit(model.init)(jax.random.key(0), source[:1], source[:1])

    def run():
        found = beam_search(model, variables, source, None, tokens + 1, beams, 0.0)
        return np.asarray(found.ids)

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
            found = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), num_beams=beams,
                do_sample=False, length_penalty=0.0, max_new_tokens=tokens, use_cache=True,
            )  # fmt: skip
        return found.numpy()[:, 1:]

    return run


def weights_of_a_step(vocab: int) -> list[np.ndarray]:
    """Every matrix that a step multiplies by: a layer's 6 square ones, feed-forward, logits."""
    rng, square = np.random.default_rng(0), (WIDTH, WIDTH)
    layer = [square] * 6 + [(WIDTH, FEED_FORWARD), (FEED_FORWARD, WIDTH)]
    shapes = layer * LAYERS + [(WIDTH, vocab)]
    return [rng.standard_normal(s, np.float32) / s[0] ** 0.5 for s in shapes]


def our_products(weights: list[np.ndarray], rows: int) -> Run:
    # The logits' matrix is the embedding table, rows of tokens: multiplied by its transpose.
    matrices = [*map(jnp.asarray, weights[:-1]), jnp.asarray(weights[-1].T.copy())]
    x = jnp.ones((rows, WIDTH))

    @jax.jit
    def step(x, matrices):
        for w in matrices[:-1]:
            x = x @ w
        return jax.lax.dot_general(x, matrices[-1], (((1,), (1,)), ((), ())))

    return lambda: step(x, matrices).block_until_ready()


def peer_products(weights: list[np.ndarray], rows: int) -> Run:
    matrices = [torch.from_numpy(w.T.copy()) for w in weights]  # as nn.Linear keeps them
    x = torch.ones(rows, WIDTH)

    def run():
        y = x
        with torch.inference_mode():
            for w in matrices:
                y = torch.nn.functional.linear(y, w)
        return y

    return run


def least(runs: dict[str, Run], turns: int) -> dict[str, float]:
    """Milliseconds of each, the least of the turns."""
    return {name: 1e3 * min(found) for name, found in take_turns(runs, turns).items()}


def measure(args: argparse.Namespace, batch: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    source = rng.integers(1, args.vocab - 1, (batch, args.source)).astype(np.int32)
    search = (args.vocab, source, args.beams, args.tokens)
    whole = least({"ours": ours(*search), "peer": peer(*search)}, args.turns)
    weights, rows = weights_of_a_step(args.vocab), batch * args.beams
    products = {"ours": our_products(weights, rows), "peer": peer_products(weights, rows)}
    alone = least(products, 10 * args.turns)
    return {
        "batch": batch,
        "ours_ms": whole["ours"] / args.tokens,
        "peer_ms": whole["peer"] / args.tokens,
        "ratio": whole["peer"] / whole["ours"],
        "bound": whole["peer"] / args.tokens / alone["ours"],
        "our_products_ms": alone["ours"],
        "peer_products_ms": alone["peer"],
    }


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=37_000)
    parser.add_argument("--source", type=int, default=24, help="source tokens")
    parser.add_argument("--tokens", type=int, default=32, help="tokens generated")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(frame.cores())
    print("ms a step  batch    ours    peer   ratio   bound   products: ours    peer")
    rows = []
    for batch in args.batch:
        r = measure(args, batch)
        rows.append(r)
        print(
            f"{batch:16d}{r['ours_ms']:8.1f}{r['peer_ms']:8.1f}{r['ratio']:8.2f}{r['bound']:8.2f}"
            f"{r['our_products_ms']:17.1f}{r['peer_products_ms']:8.1f}",
            flush=True,
        )
    frame.keep(args.json, {"settings": vars(args) | {"json": None}, "rows": rows})


if __name__ == "__main__":
    main()
