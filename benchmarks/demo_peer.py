"""Trains a PyTorch `nn.Transformer` on the translation demo's pairs for a given wall time.

    pip install -e .[bench]
    python benchmarks/demo_peer.py --seconds 360 --seed 0 --out peer.txt
    python benchmarks/translation_memory.py peer.txt

The model has 2.5 million parameters: pre-norm, 3 encoder and 2 decoder layers, width 192, 4 heads.
Its vocabulary of 4,000 is a SentencePiece unigram model of the training pairs. One embedding table,
initialised from N(0, d^-0.5), is shared by source, target and logits. AdamW warms up to 2e-3 in 200
steps and decays linearly to 0 over the wall time. Label smoothing is 0.1; a batch has up to 1,500
target tokens in sentences of similar length. Translation is by greedy search.
"""

from __future__ import annotations

import io
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import frame
import sentencepiece
import torch
from torch import nn
from translation_memory import learnable

VOCAB, WIDTH, HEADS, FEED_FORWARD = 4000, 192, 4, 384  # 2.5 million parameters
ENCODER_LAYERS, DECODER_LAYERS = 3, 2
PAD, START, END = 0, 1, 2
PEAK, WARMUP, SMOOTHING, DROPOUT = 2e-3, 200, 0.1, 0.1
TOKENS = 1500  # target tokens in a batch, including padding
MAX_TOKENS = 60  # of a translation

Ids = list[int]


class Peer(nn.Module):
    """`nn.Transformer` with sinusoidal positions and tied embeddings."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCAB, WIDTH, padding_idx=PAD)
        nn.init.normal_(self.table.weight, std=WIDTH**-0.5)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS, FEED_FORWARD, DROPOUT,
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.dropout = nn.Dropout(DROPOUT)
        self.register_buffer("positions", sinusoids(256), persistent=False)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids) * math.sqrt(WIDTH) + self.positions[: ids.shape[1]]
        return self.dropout(x)

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        return self.transformer.encoder(
            self.embed(source), src_key_padding_mask=source.eq(PAD), is_causal=False
        )

    def decode(self, inputs: torch.Tensor, memory: torch.Tensor, padding: torch.Tensor):
        length = inputs.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        hidden = self.transformer.decoder(
            self.embed(inputs), memory, causal, memory_key_padding_mask=padding, tgt_is_causal=True
        )
        return hidden

    def forward(self, source: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.decode(inputs, self.encode(source), source.eq(PAD))
        return hidden @ self.table.weight.T


def sinusoids(length: int) -> torch.Tensor:
    angles = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def train_vocabulary(pairs: list[tuple[str, str]]) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for pair in pairs for text in pair]), model_writer=model,
        vocab_size=VOCAB, model_type="unigram", pad_id=PAD, bos_id=START, eos_id=END, unk_id=3,
        character_coverage=1.0, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def padded(rows: list[Ids]) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def batches(examples: list[tuple[Ids, Ids]], rng: random.Random) -> Iterator[tuple]:
    """Endless shuffled batches of examples of similar length."""
    while True:
        order = sorted(examples, key=lambda pair: (len(pair[1]), len(pair[0]), rng.random()))
        groups, group = [], []
        for pair in order:
            longest = max(len(side) for example in (*group, pair) for side in example)
            if group and longest * (len(group) + 1) > TOKENS:
                groups.append(group)
                group = []
            group.append(pair)
        groups.append(group)
        rng.shuffle(groups)
        for group in groups:
            sources = padded([source for source, _ in group])
            inputs = padded([[START, *target[:-1]] for _, target in group])
            yield sources, inputs, padded([target for _, target in group])


def rate(step: int, elapsed: float, decay_from: float, seconds: float) -> float:
    """Learning rate: linear warm-up over the first steps, then linear decay over the wall time."""
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    return PEAK * max(0.0, (seconds - elapsed) / max(seconds - decay_from, 1e-9))


class Trainer:
    """The peer with its optimizer and batches."""

    def __init__(self, examples: list[tuple[Ids, Ids]], seed: int):
        torch.manual_seed(seed)
        self.model = Peer().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, fused=True)
        self.batches = batches(examples, random.Random(seed))

    def step(self, learning_rate: float) -> tuple[float, int]:
        """Makes one update; returns the loss and the number of target tokens."""
        source, inputs, labels = next(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(source, inputs)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=SMOOTHING
        )
        loss.backward()
        self.optimizer.step()
        return loss.item(), int(labels.ne(PAD).sum())


def train(trainer: Trainer, seconds: float) -> dict[str, float]:
    """Trains until the wall time is up."""
    start, step, tokens, decay_from = time.perf_counter(), 0, 0, 0.0
    while (elapsed := time.perf_counter() - start) < seconds:
        decay_from = decay_from if step > WARMUP else elapsed
        loss, num_tokens = trainer.step(rate(step, elapsed, decay_from, seconds))
        step, tokens = step + 1, tokens + num_tokens
        if step % 100 == 0:
            print(f"step {step}: loss {loss:.3f}, {tokens / elapsed:,.0f} target tokens/s")
    elapsed = time.perf_counter() - start
    return {"steps": step, "seconds": elapsed, "target_tokens_per_s": tokens / elapsed}


@torch.inference_mode()
def greedy(model: Peer, source: torch.Tensor) -> list[Ids]:
    """Greedy search, until all sentences have ended."""
    memory, padding = model.encode(source), source.eq(PAD)
    output = torch.full((len(source), 1), START)
    ended = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(MAX_TOKENS):
        logits = model.decode(output, memory, padding)[:, -1] @ model.table.weight.T
        token = logits.argmax(-1).masked_fill(ended, PAD)
        output = torch.cat([output, token[:, None]], dim=1)
        ended |= token.eq(END)
        if ended.all():
            break
    return [row[1:] for row in output.tolist()]


def translate(model: Peer, vocabulary, sentences: list[str], rows: int = 64) -> list[str]:
    model.eval()
    translations: list[str] = []
    for start in range(0, len(sentences), rows):
        ids = vocabulary.encode(sentences[start : start + rows])
        for row in greedy(model, padded([[*source, END] for source in ids])):
            tokens = row[: row.index(END)] if END in row else row
            translations.append(vocabulary.decode([i for i in tokens if i > END]))
    return translations


def encoded(vocabulary, pairs: list[tuple[str, str]]) -> list[tuple[Ids, Ids]]:
    sides = [vocabulary.encode([pair[side] for pair in pairs]) for side in (0, 1)]
    return [([*s, END], [*t, END]) for s, t in zip(*sides, strict=True)]


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=360.0, help="wall time of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="output file of the translations")
    args = parser.parse_args()
    torch.set_num_threads(frame.cores())
    pairs, held_out = learnable("train"), learnable("held_out")
    vocabulary = train_vocabulary(pairs)
    trainer = Trainer(encoded(vocabulary, pairs), args.seed)
    metrics = train(trainer, args.seconds)
    metrics["parameters"] = sum(p.numel() for p in trainer.model.parameters())
    hypotheses = translate(trainer.model, vocabulary, [source for source, _ in held_out])
    args.out.write_text("".join(f"{line}\n" for line in hypotheses), encoding="utf-8")
    frame.keep(args.json, metrics)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
