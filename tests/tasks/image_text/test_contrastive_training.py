"""Training follows open_clip's loss and PyTorch's AdamW, and a pod of processes one device."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import clip_training as training
import jax
import numpy as np
import pytest
import safetensors.numpy

import jaxformers as jf
from jaxformers.data.captions import BundledEmoji
from jaxformers.data.images import Augmentation, Preprocessing
from jaxformers.layers import Execution
from jaxformers.sharding import MeshConfig, make_mesh, put_batch
from jaxformers.tasks import Contrastive
from jaxformers.training import Adam, Cosine, Experiment
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import jit_step

GOLDEN = np.load(training.GOLDEN)
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The initial weights in a file of OpenAI's names."""
    path = tmp_path_factory.mktemp("training") / "clip.safetensors"
    marks = ("input_resolution", "context_length", "vocab_size")  # of an archive of OpenAI's
    tensors = training.tensors() | dict.fromkeys(marks, np.array(0))
    safetensors.numpy.save_file(tensors, path)
    return path


def experiment(weights, **changes) -> Experiment:
    model, _ = jf.from_pretrained(weights)
    task = Contrastive(
        model=model.config,
        data=BundledEmoji(("twemoji",), limit=20),
        augmentation=Augmentation(model.config.image_size, flip=0.0),
        preprocessing=Preprocessing(model.config.image_size),
        rows=training.ROWS,
        weights=str(weights),
        **changes,
    )
    (b1, b2), eps = training.BETAS, training.EPSILON
    return Experiment(
        "toy",
        task,
        steps=training.STEPS,
        optimizer=Adam(b1, b2, eps, training.WEIGHT_DECAY, decays="matrices"),
        schedule=Cosine(training.PEAK, training.WARMUP),
    )


def train_steps(experiment: Experiment, shape: tuple[int, int, int]):
    """Losses, scales and final variables of all steps on a mesh."""
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
    model = experiment.task.module(Execution())
    losses, scales = [], []
    with jax.set_mesh(mesh):
        abstract = abstract_state(experiment, model, mesh)
        step = jit_step(experiment, model, mesh, abstract)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        state = jax.jit(lambda: init_state(experiment, model), out_shardings=shardings)()
        start = experiment.task.pretrained(model)["params"]
        state = replace(state, params=jax.device_put(start, shardings.params))
        for number in range(training.STEPS):
            batch = training.batch(number)
            batch["groups"] = np.arange(2 * training.ROWS, dtype=np.int32).reshape(-1, 2)
            state, metrics = step(state, put_batch(batch, mesh, number + 1))
            losses.append(float(metrics["loss"]))
            scales.append(float(state.params["logit_scale"]))
        return losses, scales, model, {"params": jax.device_get(state.params)}


def check_same_as_open_clip(experiment, shape, tmp_path):
    losses, scales, model, variables = train_steps(experiment, shape)
    np.testing.assert_allclose(losses, GOLDEN["losses"], atol=1e-4)
    np.testing.assert_allclose(scales, GOLDEN["scales"], atol=1e-4)
    jf.save_pretrained(model, variables, tmp_path / "trained", format="open_clip")
    tensors = safetensors.numpy.load_file(tmp_path / "trained" / "model.safetensors")
    names = [name.removeprefix("norm_") for name in GOLDEN.files if name.startswith("norm_")]
    assert set(names) == set(tensors)
    start = training.tensors()
    for name in names:
        flat = tensors[name].ravel()
        entries = flat[:: max(1, len(flat) // 40)][:40]
        np.testing.assert_allclose(entries, GOLDEN[f"entries_{name}"], atol=1e-4, err_msg=name)
        assert np.linalg.norm(flat) == pytest.approx(float(GOLDEN[f"norm_{name}"]), rel=1e-4)
    moved = max(np.abs(tensors[name] - start[name]).max() for name in names)
    assert moved > 5e-3  # fifty times the tolerance


@pytest.mark.slow
def test_twenty_steps_follow_open_clips_loss_and_pytorchs_adamw(weights, tmp_path):
    check_same_as_open_clip(experiment(weights), (1, 1, 1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "changes"),
    [((2, 4, 1), {"form": "ring"}), ((4, 2, 1), {"form": "plain", "microbatches": 2})],
    ids=str,
)
def test_twenty_steps_on_a_mesh_follow_them_too(shape, changes, weights, tmp_path):
    check_same_as_open_clip(experiment(weights, **changes), shape, tmp_path)


def run_losses(folder: Path, processes: int, devices: int, *options: str) -> list[float]:
    """The losses of `tiny_contrastive`, as the command's processes of so many devices train it."""
    words = ["train", str(ROOT / "tests" / "helpers" / "tiny_contrastive.py"), *options]
    words += ["--folder", str(folder)]
    call = f"launch({processes}, {words}, {devices})"
    call = f"from jaxformers.pod.local_processes import launch; raise SystemExit({call})"
    subprocess.run([sys.executable, "-c", call], cwd=ROOT, check=True, timeout=500)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.slow
def test_two_processes_of_four_devices_train_as_one_device_does(tmp_path):
    alone = run_losses(tmp_path / "alone", 1, 1)
    assert len(alone) == 8 and len(set(alone)) == 8
    pod = run_losses(tmp_path / "pod", 2, 4, "--fsdp", "2")
    np.testing.assert_allclose(pod, alone, rtol=1e-5)
    # Weights, too: the loss of a step does not tell whether the last gradients were right.
    alone, pod = (jf.from_pretrained(tmp_path / name)[1] for name in ("alone", "pod"))
    for (path, expected), leaf in zip(
        jax.tree_util.tree_leaves_with_path(alone), jax.tree.leaves(pod), strict=True
    ):
        name = jax.tree_util.keystr(path)
        # Softmax is blind to the keys' biases: Adam divides rounding errors by their own size.
        tolerance = 2e-3 if "['key']['bias']" in name else 5e-5
        np.testing.assert_allclose(leaf, expected, atol=tolerance, err_msg=name)
