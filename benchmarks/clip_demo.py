"""Compares the CLIP demo with a plain PyTorch network of its size trained for the same wall time.

    pip install -e .[bench]
    python benchmarks/clip_demo.py --seeds 0 1 2

For each seed, ours trains as `jaxformers train experiments/clip/demo.py` does. Then the peer, the
same two towers in plain PyTorch, trains for as long as ours took, compilation included. It uses the
same batches (our data pipeline feeds both), PyTorch's AdamW, and the same schedule over its wall
time. Both are scored by text-to-image recall at 10 under the experiment's retrieval evaluators: all
concepts or only held-out ones, in a style that is not in the training set, and held-out concepts in
a style that is.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import frame
import numpy as np
import torch
from etils import epath
from torch import nn

from jaxformers.data.captions import CaptionRows
from jaxformers.data.pipeline.fixed_length import every_row
from jaxformers.evaluation.retrieval import recall_at
from jaxformers.models.clip import ModifiedResNetConfig
from jaxformers.tasks.image_text.retrieval import RetrievalEvaluator
from jaxformers.text.clip import padded_rows
from jaxformers.training import Experiment
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.loop import train

FILE = Path(__file__).resolve().parents[1] / "experiments" / "clip" / "demo.py"


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """A convolution followed by batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """ResNet bottleneck (1x1, 3x3, 1x1) that downsamples by average pooling."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        inner = outputs // 4
        self.first, self.second = convolution(inputs, inner, 1), convolution(inner, inner, 3)
        self.third = convolution(inner, outputs, 1)
        nn.init.zeros_(self.third[1].weight)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        project = stride > 1 or inputs != outputs
        self.shortcut = convolution(inputs, outputs, 1) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x).relu()).relu()
        return (self.third(self.pool(y)) + self.shortcut(self.pool(x))).relu()


class ImageTower(nn.Module):
    """CLIP's ResNet: stem of three convolutions, bottlenecks, attention pooling."""

    def __init__(self, config: ModifiedResNetConfig):
        super().__init__()
        half, width = config.width // 2, config.features
        layers = [convolution(3, half, 3, 2), nn.ReLU(), convolution(half, half, 3), nn.ReLU()]
        layers += [convolution(half, config.width, 3), nn.ReLU(), nn.AvgPool2d(2)]
        inputs = config.width
        for stage, (depth, outputs) in enumerate(
            zip(config.depths, config.stage_widths, strict=True)
        ):
            for block in range(depth):
                layers.append(Bottleneck(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        tokens = (config.image_size // 32) ** 2 + 1
        self.positions = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        # The attention's output projection maps into the embedding space; no other one follows.
        self.attention.out_proj = nn.Linear(width, config.projection)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.layers(images.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)  # [B, h w, D]
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.positions
        pooled, _ = self.attention(x[:, :1], x, x, need_weights=False)
        return pooled[:, 0]


class TextTower(nn.Module):
    """A causal pre-norm Transformer, pooled at the end of the text."""

    def __init__(self, config):
        super().__init__()
        self.eos_id = config.eos_id
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.positions = nn.Parameter(torch.randn(config.context_length, config.width) * 0.01)
        layer = nn.TransformerEncoderLayer(
            config.width, config.heads, config.feed_forward, 0.0, nn.GELU("tanh"),
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.projection, bias=False)
        mask = torch.full((config.context_length, config.context_length), -math.inf).triu(1)
        self.register_buffer("mask", mask)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.layers(self.tokens(input_ids) + self.positions, self.mask, is_causal=True)
        ends = (input_ids == self.eos_id).int().argmax(1)
        return self.projection(self.norm(x[torch.arange(len(x)), ends]))


class Peer(nn.Module):
    """Both towers and the logit scale."""

    def __init__(self, config):
        super().__init__()
        self.image, self.text = ImageTower(config.image), TextTower(config.text)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: torch.Tensor, input_ids: torch.Tensor):
        normalize = nn.functional.normalize
        return normalize(self.image(images), dim=1), normalize(self.text(input_ids), dim=1)


def peer_loss(peer: Peer, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """CLIP's loss: all other pairs of the batch are negatives."""
    image, text = peer(batch["images"], batch["input_ids"])
    logits = peer.logit_scale.exp() * image @ text.T
    labels = torch.arange(len(logits))
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def tensors(experiment: Experiment, batch) -> dict[str, torch.Tensor]:
    """The batch as PyTorch tensors, with images normalised."""
    mean, std = experiment.task.preprocessing.mean, experiment.task.preprocessing.std
    images = (torch.from_numpy(batch["images"]).float() / 255 - torch.tensor(mean)) / torch.tensor(
        std
    )
    return {"images": images, "input_ids": torch.from_numpy(batch["input_ids"]).long()}


def train_peer(experiment: Experiment, folder: Path, seconds: float) -> tuple[Peer, int]:
    """Trains the peer for `seconds`; returns it and its number of steps."""
    torch.manual_seed(experiment.seed)
    data = experiment.task.open(epath.Path(folder), experiment.seed)
    peer = Peer(experiment.task.model).train()
    adam, schedule = experiment.optimizer, experiment.schedule
    matrices = [p for p in peer.parameters() if p.ndim > 1]
    vectors = [p for p in peer.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        schedule.peak,
        (adam.b1, adam.b2),
        adam.eps,
        adam.weight_decay,
        fused=True,
    )
    start, step = time.perf_counter(), 0
    warmup = schedule.warmup / experiment.steps
    # A thread prepares the next batch, as in our training loop.
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(data.plan.batch, data.store, experiment.seed, step)
        while (share := (time.perf_counter() - start) / seconds) < 1:
            factor = share / warmup if share < warmup else 0.5 * (1 + math.cos(math.pi * share))
            for group in optimizer.param_groups:
                group["lr"] = schedule.peak * factor
            batch = tensors(experiment, pending.result())
            pending = thread.submit(data.plan.batch, data.store, experiment.seed, step + 1)
            optimizer.zero_grad(set_to_none=True)
            peer_loss(peer, batch).backward()
            optimizer.step()
            with torch.no_grad():
                peer.logit_scale.clamp_(0.0, math.log(100.0))
            step += 1
    return peer.eval(), step


def embedded(encode: Callable, batches: Iterable) -> np.ndarray:
    """Unit vectors of batches, each given with the number of its rows that count."""
    encodings = [encode(batch)[:count] for batch, count in batches]
    return nn.functional.normalize(torch.cat(encodings), dim=1).numpy()


@torch.inference_mode()
def peer_recalls(experiment: Experiment, folder: Path, peer: Peer) -> dict[str, float]:
    """Recall at 10 of the peer under each of the experiment's retrieval evaluators."""
    processor = experiment.task.processor(epath.Path(folder))
    length = experiment.task.model.text.context_length
    recalls = {}
    for evaluator in experiment.chosen_evaluators():
        if not isinstance(evaluator, RetrievalEvaluator):
            continue
        images = evaluator.dev.open()
        texts, positives = evaluator.texts_and_positives(images)
        store = CaptionRows(images, processor.preprocessing, processor.tokenizer, length)
        image = embedded(
            lambda batch: peer.image(tensors(experiment, batch)["images"]), every_row(store, 256)
        )
        ids = torch.from_numpy(padded_rows(processor.tokenizer, texts, length)).long()
        text = embedded(peer.text, ((rows, len(rows)) for rows in ids.split(256)))
        recall = recall_at(text, image, positives)[10]
        recalls[f"{evaluator.prefix}_text_to_image_recall_10"] = recall
    return recalls


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(frame.cores())
    results = []
    for seed in args.seeds:
        experiment = replace(load_experiment(FILE), seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            metrics = train(experiment, folder).evaluation.metrics
            seconds = time.perf_counter() - start
            peer, peer_steps = train_peer(experiment, Path(folder), seconds)
            recalls = peer_recalls(experiment, Path(folder), peer)
        ours = {name: metrics[name] for name in recalls}
        steps = experiment.steps, peer_steps
        print(f"seed {seed}, {seconds:.0f} s a side, steps {steps}: ours {ours}, peer {recalls}")
        results.append(
            {"seed": seed, "seconds": seconds, "steps": steps, "ours": metrics, "peer": recalls}
        )
    for name in results[0]["peer"]:
        for side in ("ours", "peer"):
            values = [result[side][name] for result in results]
            listed = ", ".join(f"{value:.1f}" for value in values)
            print(f"{name}, {side}: {listed}; mean {statistics.mean(values):.1f} %")
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
