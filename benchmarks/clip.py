"""Benchmarks CLIP ViT-B/32 against Hugging Face's PyTorch model and against jimm.

    pip install -e .[bench] jax-image-models
    python benchmarks/clip.py --turns 7
    python benchmarks/clip.py --parts data      # tar shards against the demo's training

Every library loads the same random weights from one folder and encodes the images and texts of a
batch in float32. Their embeddings are checked for equality first. The libraries alternate in one
process, so that all see the same machine load. jimm (`jax-image-models`) is skipped if it cannot be
imported.

`--parts data` measures the throughput of the data pipeline: the demo's emoji are read from tar
shards, decoded, augmented and tokenized as in training, and compared with the demo's train step.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import frame
import jax
import numpy as np
from frame import Run

import jaxformers as jf
from jaxformers.data.captions import BundledEmoji, CaptionPlan, CaptionRows, TarShards
from jaxformers.layers import Execution
from jaxformers.models import CLIP, CLIPConfig
from jaxformers.sharding import MeshConfig, make_mesh, put_batch
from jaxformers.text import WordPiece
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import jit_step

DEMO = Path(__file__).resolve().parents[1] / "experiments" / "clip" / "demo.py"
PARTS = ("image", "text", "data")
SHARD = 500  # images
TOLERANCE = 1e-3  # for embeddings of order 1


def random_batch(config: CLIPConfig, rows: int) -> dict[str, np.ndarray]:
    """Normalised images, and texts of the full context length that end with the last token."""
    rng = np.random.default_rng(0)
    size, text = config.image_size, config.text
    ids = rng.integers(1, text.vocab_size - 2, (rows, text.context_length))
    ids[:, -1] = text.vocab_size - 1
    images = rng.standard_normal((rows, size, size, 3), np.float32)
    return {"image": images, "text": ids.astype(np.int32)}


def write_weights(config: CLIPConfig, folder: Path) -> None:
    """Saves randomly initialised weights in Hugging Face's layout."""
    model = CLIP(config, Execution())
    images = np.zeros((1, config.image_size, config.image_size, 3), np.float32)
    ids = np.zeros((1, config.text.context_length), np.int32)
    jf.save_pretrained(model, jax.jit(model.init)(jax.random.key(0), images, ids), folder)


def our_encoder(folder: Path, modality: str, batch: dict[str, np.ndarray]) -> Run:
    """A function that returns our projected embeddings of the batch."""
    model, variables = jf.from_pretrained(folder)
    encode = jax.jit(lambda variables, x: model.apply(variables, x, method=f"encode_{modality}"))
    inputs = jax.device_put(batch[modality])
    return lambda: jax.block_until_ready(encode(variables, inputs))


def huggingface_encoder(folder: Path, modality: str, batch: dict[str, np.ndarray]) -> Run:
    """The same for `CLIPModel`, with scaled dot-product attention."""
    import torch
    from transformers import CLIPModel

    torch.set_num_threads(frame.cores())
    model = CLIPModel.from_pretrained(folder, attn_implementation="sdpa").eval()
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2).contiguous()
    ids = torch.from_numpy(batch["text"]).long()

    def encode() -> Any:
        with torch.inference_mode():
            if modality == "image":
                return model.visual_projection(model.vision_model(images).pooler_output)
            return model.text_projection(model.text_model(input_ids=ids).pooler_output)

    return encode


def jimm_encoder(folder: Path, modality: str, batch: dict[str, np.ndarray]) -> Run:
    """The same for jimm's CLIP."""
    import jimm
    from flax import nnx

    model = jimm.CLIP.from_pretrained(str(folder))
    encode = nnx.jit(lambda model, x: getattr(model, f"encode_{modality}")(x))
    inputs = jax.device_put(batch[modality])
    return lambda: jax.block_until_ready(encode(model, inputs))


def encoders(folder: Path, modality: str, batch: dict[str, np.ndarray]) -> dict[str, Run]:
    """The encoders of the installed libraries, after checking that their embeddings equal ours."""
    sides = {"ours": our_encoder, "Hugging Face": huggingface_encoder, "jimm": jimm_encoder}
    try:
        import jimm  # noqa: F401
    except (ImportError, SyntaxError) as error:  # tokamax, which it needs, lacks some Pythons
        print(f"jimm is skipped: {error}")
        del sides["jimm"]
    runs = {name: side(folder, modality, batch) for name, side in sides.items()}
    expected = np.asarray(runs["ours"]())
    for name, run in runs.items():
        difference = np.abs(np.asarray(run()) - expected).max()
        if not difference < TOLERANCE:
            raise SystemExit(
                f"{name}'s embeddings of {modality}s differ from ours by {difference:.2g}"
            )
    return runs


def write_shards(folder: Path) -> int:
    """Writes the bundled emoji as tar shards in WebDataset's layout; returns the image count."""
    images = BundledEmoji(("twemoji",)).open()
    for start in range(0, len(images), SHARD):
        with tarfile.open(folder / f"{start // SHARD:05}.tar", "w") as archive:
            for index in range(start, min(start + SHARD, len(images))):
                stream = io.BytesIO()
                images.image(index).save(stream, "PNG")
                add(archive, f"{index:06}.png", stream.getvalue())
                add(archive, f"{index:06}.txt", "\n".join(images.captions(index)).encode())
    return len(images)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file to an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def shard_rate(task: Any, folder: Path, steps: int) -> float:
    """Images per second read from tar shards, without worker processes."""
    images = TarShards(str(folder)).open()
    texts = (text for index in range(len(images)) for text in images.captions(index))
    tokenizer = WordPiece.train(texts, task.model.text.vocab_size)
    store = CaptionRows(images, task.augmentation, tokenizer, task.model.text.context_length)
    plan = CaptionPlan(store, task.rows)
    plan.batch(store, 0, 0)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        plan.batch(store, 0, step)
    return steps * task.rows / (time.perf_counter() - start)


def training_rate(experiment: Any, steps: int) -> float:
    """Images per second of the demo's train step on one device."""
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        step = jit_step(experiment, model, mesh, abstract_state(experiment, model, mesh))
        state = jax.jit(lambda: init_state(experiment, model))()
        batch = put_batch(experiment.task.example(0), mesh, 1)
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
    return steps * experiment.task.rows / (time.perf_counter() - start)


def data_rates(steps: int) -> dict[str, float]:
    """Images per second of the tar shards and of the demo's training, and their ratio."""
    experiment = load_experiment(str(DEMO))
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder))
        shards = shard_rate(experiment.task, Path(folder), steps)
    training = training_rate(experiment, steps)
    return {"shards": shards, "training": training, "ratio": shards / training}


def main() -> None:
    """Runs the benchmarks of `--parts` and prints their results."""
    parser = frame.parser(__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rows", type=int, default=32, help="images or texts in a batch")
    parser.add_argument(
        "--steps", type=int, default=10, help="timed batches and train steps of the data benchmark"
    )
    args = parser.parse_args()
    config, results = CLIPConfig.vit_b32(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clip"
        if set(args.parts) - {"data"}:
            write_weights(config, folder)
        for modality in [name for name in args.parts if name != "data"]:
            runs = encoders(folder, modality, random_batch(config, args.rows))
            seconds = frame.take_turns(runs, args.turns)
            medians = {side: statistics.median(times) for side, times in seconds.items()}
            results[modality] = {"seconds": seconds, "medians": medians}
            for side, median in medians.items():
                print(
                    f"{modality}, batch {args.rows}: {side} {1e3 * median:.1f} ms (median of "
                    f"{args.turns}), {median / medians['ours']:.2f} of ours"
                )
    if "data" in args.parts:
        results["data"] = rates = data_rates(args.steps)
        print(
            f"tar shards {rates['shards']:,.0f} images/s, the demo's training "
            f"{rates['training']:,.0f}: {rates['ratio']:.1f} times as many"
        )
    frame.keep(args.json, results)


if __name__ == "__main__":
    main()
