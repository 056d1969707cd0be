"""What `jaxformers check` asks a translation model: a made-up batch, and telling outputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxformers.data import Batch
from jaxformers.data.pipeline.collate import batch_shapes
from jaxformers.layers import Mask
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.tasks.base import Variables

SMALL = 1e-3  # with all parameters and inputs this small, every norm sees a variance near 1e-6


def example(size: tuple[int, int, int], config: TransformerConfig, seed: int) -> Batch:
    """A packed batch of random pairs; `size` is rows, source length and target length."""
    rng, rows = np.random.default_rng(seed), size[0]
    batch = {n: np.zeros(*spec) for n, spec in batch_shapes(*size).items()}
    for name in ("source_ids", "target_in_ids", "target_out_ids"):
        batch[name] += config.pad_id
    for row in range(rows):
        ends = np.zeros(2, int)
        for segment in range(1, 4):
            starts, ends = ends, ends + rng.integers(1, np.array(size[1:]) // 3 + 1)
            _place(batch, config, rng, (row, segment, *zip(starts, ends, strict=True)))
    return batch


def _place(batch: Batch, config: TransformerConfig, rng, where) -> None:
    row, segment, source, target = where
    for side, (start, end) in (("source", source), ("target", target)):
        batch[f"{side}_segments"][row, start:end] = segment
        batch[f"{side}_positions"][row, start:end] = np.arange(end - start)
    ids = rng.integers(0, config.vocab_size, target[1] - target[0])
    batch["source_ids"][row, slice(*source)] = rng.integers(
        0, config.vocab_size, source[1] - source[0]
    )
    batch["target_out_ids"][row, slice(*target)] = ids
    batch["target_in_ids"][row, slice(*target)] = [config.start_id, *ids[:-1]]


def probe(model: Transformer, variables: Variables, batch: Batch) -> dict[str, jax.Array]:
    """Logits of packed rows and of masked unpacked ones; both stacks' outputs on small inputs."""
    vocab, width = model.config.vocab_size, model.config.width
    packed = {k: v for k, v in batch.items() if k.endswith(("segments", "positions"))}
    ids = (batch["source_ids"], batch["target_in_ids"])
    logits = model.apply(variables, *ids, **packed)
    masked = model.apply(variables, *ids, (batch["source_segments"] > 0).astype(jnp.int32))
    rng = np.random.default_rng(1)
    source, target = (
        jnp.asarray(SMALL * rng.standard_normal((*i.shape, width)), jnp.float32) for i in ids
    )
    small = jax.tree.map(lambda x: SMALL * x, variables)
    memory, hidden = model.apply(small, source, target, method=_stacks)
    return {
        "packed logits": logits[..., :vocab],
        "masked logits": masked[..., :vocab],
        "encoder on small inputs": memory,
        "decoder on small inputs": hidden,
    }


def _stacks(model: Transformer, source, target) -> tuple[jax.Array, jax.Array]:
    memory = model.encoder(source)
    return memory, model.decoder(target, memory, Mask(causal=True))
