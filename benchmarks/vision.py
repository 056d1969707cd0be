"""Benchmarks ViT-B/16 and ResNet-50 against Hugging Face's PyTorch models.

    pip install -e .[bench]
    python benchmarks/vision.py --turns 5

Measures training steps (cross entropy; AdamW for ViT, SGD with momentum for ResNet) and inference
on random images of 224 pixels, in float32. The peer uses the settings that are fastest on this
machine: scaled dot-product attention, fused optimizers, gradients set to None; ResNet both in its
plain and in its channels-last layout. All alternate in one process, so that they see the same
machine load. On a GPU, `--gpu` measures only images/s and MFU of ours.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import frame
import jax
import numpy as np
import optax
from frame import Run

from jaxformers.costs import model_flops
from jaxformers.layers import Execution
from jaxformers.models import ResNet, ResNetConfig, ViT, ViTConfig

CLASSES = 1000
MODELS: dict[str, Callable[[int], Any]] = {
    "vit_b16": lambda side: ViTConfig.base(16, activation="gelu", image_size=side),
    "vit_l16": lambda side: ViTConfig.large(16, activation="gelu", image_size=side),
    "resnet50": lambda side: ResNetConfig.resnet50(image_size=side),
}
Batch = dict[str, np.ndarray]
FLOAT32 = Execution()


def our_model(name: str, batch: Batch, execution: Execution) -> nn.Module:
    """Our model for images of the batch's size."""
    config = MODELS[name](batch["images"].shape[1])
    return (ResNet if name == "resnet50" else ViT)(config, execution)


def random_batch(rows: int, side: int) -> Batch:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((rows, side, side, 3), np.float32)
    return {"images": images, "labels": rng.integers(0, CLASSES, rows, np.int32)}


def random_variables(model: nn.Module):
    """Random variables of a sensible scale, without compiling the model's initialisers."""
    rng = np.random.default_rng(0)
    side = model.config.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)

    def draw(leaf):
        scale = 1.0 if leaf.ndim < 2 else (2.0 / np.prod(leaf.shape[:-1])) ** 0.5
        values = rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)
        return jax.device_put(np.abs(values) if leaf.ndim < 2 else values)

    return jax.tree.map(draw, shapes)


def make_optimizer(name: str) -> optax.GradientTransformation:
    """The same optimizer as the peer's."""
    return optax.sgd(0.01, 0.9) if name.startswith("resnet") else optax.adamw(1e-4)


def step_function(name: str, model: nn.Module):
    """One update as a function of (variables, optimizer state, batch)."""
    tx = make_optimizer(name)

    def loss(params, model_state, batch):
        logits, model_state = model.apply(
            {"params": params, **model_state}, batch["images"], train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return losses.mean(), model_state

    def step(variables, state, batch):
        model_state = {k: v for k, v in variables.items() if k != "params"}
        params = variables["params"]
        (value, model_state), grads = jax.value_and_grad(loss, has_aux=True)(
            params, model_state, batch
        )
        updates, state = tx.update(grads, state, params)
        return {"params": optax.apply_updates(params, updates), **model_state}, state, value

    return step


def our_training(name: str, batch: Batch, execution: Execution = FLOAT32) -> tuple[Run, float]:
    """A function that runs one training step and waits for its result, and the FLOPs of a step."""
    model = our_model(name, batch, execution)
    variables = random_variables(model)
    state = make_optimizer(name).init(variables["params"])
    function = step_function(name, model)
    flops = model_flops(function, variables, state, batch)
    step, device_batch = jax.jit(function, donate_argnums=(0, 1)), jax.device_put(batch)

    def run():
        nonlocal variables, state
        variables, state, value = step(variables, state, device_batch)
        jax.block_until_ready((variables, value))

    return run, flops


def our_inference(name: str, batch: Batch, execution: Execution = FLOAT32) -> Run:
    """A function that computes the logits of our model."""
    model = our_model(name, batch, execution)
    variables = random_variables(model)
    apply, images = jax.jit(model.apply), jax.device_put(batch["images"])
    return lambda: jax.block_until_ready(apply(variables, images))


def peer(name: str, batch: Batch, channels_last: bool):
    """Hugging Face's model, and the batch's images and labels as tensors."""
    import torch
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    torch.manual_seed(0)
    torch.set_num_threads(frame.cores())
    if name == "resnet50":
        model = ResNetForImageClassification(ResNetConfig(num_labels=CLASSES))
    else:  # the defaults are ViT-B/16; ViT-L/16 has no peer here
        side = batch["images"].shape[1]
        config = ViTConfig(num_labels=CLASSES, image_size=side, attn_implementation="sdpa")
        model = ViTForImageClassification(config)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.from_numpy(batch["images"]).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    model = model.to(memory_format=layout)
    return model, images, torch.from_numpy(batch["labels"]).long()


def peer_training(name: str, batch: Batch, channels_last: bool) -> Run:
    """A function that runs one training step of the peer."""
    import torch

    model, images, labels = peer(name, batch, channels_last)
    if name == "resnet50":
        optimizer = torch.optim.SGD(model.train().parameters(), 0.01, 0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW(model.train().parameters(), 1e-4, fused=True)

    def run():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images).logits, labels).backward()
        optimizer.step()

    return run


def peer_inference(name: str, batch: Batch, channels_last: bool) -> Run:
    """A function that computes the logits of the peer."""
    import torch

    model, images, _ = peer(name, batch, channels_last)
    model.eval()

    def run():
        with torch.inference_mode():
            model(images)

    return run


def compare(name: str, batch: Batch, turns: int, training: bool) -> dict:
    """Times both sides; a ratio is the peer's time over ours (above 1, ours is faster)."""
    rows = len(batch["images"])
    make_peer = peer_training if training else peer_inference
    runs = {"ours": our_training(name, batch)[0] if training else our_inference(name, batch)}
    runs["plain"] = make_peer(name, batch, False)
    if name == "resnet50":
        runs["channels_last"] = make_peer(name, batch, True)
    seconds, peak = frame.beside_product(runs, turns)
    result = {"model": name, "rows": rows, "what": "training" if training else "inference"}
    for side in runs:
        result[f"{side}_s"] = min(seconds[side])
        result[f"{side}_median_s"] = statistics.median(seconds[side])
        if side != "ours":
            pairs = zip(seconds[side], seconds["ours"], strict=True)
            result[f"ratio_{side}"] = min(seconds[side]) / min(seconds["ours"])
            result[f"ratio_{side}_paired"] = statistics.median(a / b for a, b in pairs)
    return result | {"peak_gflops": peak / 1e9}


def line(result: dict) -> str:
    """One line of text for a result."""
    ratios = ", ".join(
        f"{side.replace('_', '-')} {result[f'{side}_s']:.2f} s "
        f"(ratio {result[f'ratio_{side}']:.2f}, paired {result[f'ratio_{side}_paired']:.2f})"
        for side in ("plain", "channels_last")
        if f"{side}_s" in result
    )
    title = f"{result['model']} {result['what']}, {result['rows']} images"
    return f"{title}: ours {result['ours_s']:.2f} s; PyTorch {ratios}"


def on_gpu(name: str, batch: Batch, turns: int) -> dict:
    """Images/s and MFU of our training step in bfloat16."""
    run, flops = our_training(name, batch, Execution(dtype="bfloat16"))
    metrics, rows = frame.on_gpu(run, flops, turns), len(batch["images"])
    return {"model": name, "rows": rows, "images_per_s": rows / metrics["step_s"]} | metrics


def main() -> None:
    parser = frame.parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_b16", "resnet50"], choices=[*MODELS])
    parser.add_argument("--rows", type=int, default=8, help="images in a batch")
    parser.add_argument("--side", type=int, default=224, help="pixels, a multiple of 16")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", choices=("training", "inference"))
    parser.add_argument("--gpu", action="store_true", help="only images/s and MFU of ours")
    args = parser.parse_args()
    if args.gpu:
        frame.need_gpu()
    elif "vit_l16" in args.models:
        parser.error("vit_l16 is only measured on a GPU: --gpu")
    batch, results = random_batch(args.rows, args.side), []
    for name in args.models:
        if args.gpu:
            results.append(on_gpu(name, batch, args.turns))
            print(json.dumps(results[-1]), flush=True)
            continue
        for training in (True, False):
            if args.only in (None, "training" if training else "inference"):
                results.append(compare(name, batch, args.turns, training))
                print(line(results[-1]), flush=True)
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
