"""Training of VQGAN: losses and gradients of the published code, start step, export, evaluation."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vqgan_cases as cases

from jaxformers.data.images import (
    AsIs,
    Augmentation,
    BundledFashionMnist,
    PaddedCrop,
    Preprocessing,
)
from jaxformers.errors import ConfigError
from jaxformers.layers import Execution
from jaxformers.models import VQGAN, PatchDiscriminatorConfig, VQGANConfig
from jaxformers.pretrained.model_variables import flatten, unflatten, variable_shapes
from jaxformers.pretrained.vqgan.vqgan_names import taming_map
from jaxformers.tasks import ImageGradients, ImageTokenizer, VQGANLoss
from jaxformers.training import Adam, Experiment, Linear
from jaxformers.training.loop import train
from jaxformers.training.run_directory import load_run
from jaxformers.training.state import init_state
from jaxformers.training.step import make_step

GOLDEN = np.load(cases.OUTPUTS)
TINY = VQGANConfig(
    embed_dim=8,
    n_embed=16,
    z_channels=8,
    resolution=28,
    ch=32,
    ch_mult=(1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
)


def tokenizer(config=TINY, **changes):
    fields = {
        "data": BundledFashionMnist(limit=64),
        "dev": BundledFashionMnist("dev", limit=24),
        "augmentation": Augmentation(config.resolution, crop=PaddedCrop(0)),
        "preprocessing": Preprocessing(config.resolution),
        "loss_weights": VQGANLoss(discriminator_start=0),
        "discriminator": PatchDiscriminatorConfig(3, 8, 1),
        "rows": 8,
    }
    return ImageTokenizer(config, **fields | changes)


def published_step():
    """Task, variables and images of the golden step."""
    fields = {k: v for k, v in cases.CASES[cases.TRAINED][0].items() if k != "double_z"}
    lists = {k: tuple(fields[k]) for k in ("ch_mult", "attn_resolutions")}
    config, patches = VQGANConfig(**fields | lists), cases.DISCRIMINATORS["patches"][0]
    task = tokenizer(
        config,
        loss_weights=VQGANLoss(perceptual_weight=0.0, discriminator_start=0),
        discriminator=PatchDiscriminatorConfig(3, patches["ndf"], patches["n_layers"]),
    )
    tensors = cases.weights(cases.TRAINED)
    source = type("Source", (), {"place": "golden", "read": lambda _, name: tensors[name]})()
    source.shapes = {name: tensor.shape for name, tensor in tensors.items()}
    shapes = variable_shapes(VQGAN(config))
    variables = unflatten(taming_map(config).read(source, shapes))
    discriminator = cases.discriminator_variables(cases.weights("patches"), patches["n_layers"])
    variables["params"]["discriminator"] = discriminator["params"]
    variables["batch_stats"] = {"discriminator": discriminator["batch_stats"]}
    variables["progress"] = {"steps": jnp.ones((), jnp.int32)}
    return task, variables, cases.images(cases.TRAINED)


def test_losses_and_gradients_are_those_of_the_published_code():
    task, variables, images = published_step()
    model = task.module(Execution())

    @jax.jit
    def gradients(params):
        def total(params):
            loss = task.loss(model, {**variables, "params": params}, {"images": images}, train=True)
            return loss.total / loss.weight, {k: v / loss.weight for k, v in loss.metrics.items()}

        return jax.grad(total, has_aux=True)(params)

    grads, metrics = gradients(variables["params"])
    expected = {k.removeprefix("training/"): GOLDEN[k] for k in GOLDEN if k.startswith("training/")}
    for ours, theirs in (
        ("l1", "nll_loss"),
        ("quantization", "quant_loss"),
        ("generator", "g_loss"),
        ("discriminator", "disc_loss"),
        ("logits_real", "logits_real"),
    ):
        np.testing.assert_allclose(metrics[ours], expected[theirs], rtol=1e-4, atol=1e-6)
    weight = 0.8 * metrics["adaptive_weight"]
    np.testing.assert_allclose(weight, expected["d_weight"], rtol=1e-4)
    norms = dict(line.split() for line in expected["gradients"].tolist())
    leaves = flatten({"params": {k: v for k, v in grads.items() if k != "discriminator"}})
    for name, gradient in taming_map(task.model).write(leaves).items():
        theirs = float(norms.pop(name))
        np.testing.assert_allclose(np.linalg.norm(gradient), theirs, rtol=1e-3, atol=1e-5)
    reference = cases.discriminator_variables(
        {
            k.removeprefix("discriminator."): np.float32(v).reshape((1,) * 4)
            for k, v in norms.items()
        },
        2,
    )["params"]
    for path, theirs in flatten(reference).items():
        ours = np.linalg.norm(flatten(grads["discriminator"])[path])
        np.testing.assert_allclose(ours, theirs.item(), rtol=1e-3, atol=1e-5)


def run_of(task, **changes):
    fields = dict(steps=3, optimizer=Adam(0.5, 0.9, 1e-8), schedule=Linear(1e-3, 0, 1e-3))
    return Experiment(name="tokenizer", task=task, **fields | changes)


@pytest.mark.slow
def test_the_discriminator_stands_still_until_its_start():
    task = tokenizer(loss_weights=VQGANLoss(ImageGradients(2), discriminator_start=1))
    experiment = run_of(task)
    model = task.module(Execution())
    state = jax.jit(lambda: init_state(experiment, model))()
    step, batch = jax.jit(make_step(experiment, model)), task.example(0)
    first, _ = step(state, batch)
    second, metrics = step(first, batch)
    old, same, moved = (flatten(s.params["discriminator"]) for s in (state, first, second))
    assert all(np.array_equal(same[path], leaf) for path, leaf in old.items())
    assert all(
        not np.array_equal(moved[path], leaf) for path, leaf in old.items() if "conv_0" in path
    )
    kernel = "decoder", "conv_out", "kernel"
    before, after = state.params, first.params
    for name in kernel:
        before, after = before[name], after[name]
    assert not np.array_equal(before, after)
    assert int(second.model_state["progress"]["steps"]) == 2
    assert 0 < metrics["codes_used"] <= 1


@pytest.mark.slow
def test_a_run_exports_the_tokenizer_alone_and_reports_reconstructions(tmp_path):
    config = replace(TINY, ch_mult=(1,))
    task = tokenizer(config, loss_weights=VQGANLoss(discriminator_start=1, entropy_weight=0.1))
    result = train(run_of(task), tmp_path)
    metrics = result.evaluation.metrics
    assert {"dev_psnr", "dev_ssim", "dev_codes_used", "dev_perplexity"} <= metrics.keys()
    assert (tmp_path / "images_and_their_reconstructions.png").exists()
    model, variables = load_run(tmp_path)
    assert type(model) is VQGAN and model.config == config
    assert "discriminator" not in variables["params"]


def test_gradients_of_images_are_compared_at_several_scales():
    x = np.zeros((1, 4, 4, 1), np.float32)
    y = x.copy()
    y[0, :, 2:] = 1.0  # an edge, which a mean over windows of 2 x 2 keeps
    distance = ImageGradients(2).distance({}, x, y)
    np.testing.assert_allclose(distance, [4 / 12 + 2 / 2])
    np.testing.assert_allclose(ImageGradients(3).distance({}, x + 5, x), [0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": Preprocessing(28, mean=(0.4,))}, "--task.preprocessing.mean to 0.5"),
        ({"discriminator": PatchDiscriminatorConfig(1)}, "--task.discriminator.channels 3"),
        ({"config": replace(TINY, out_ch=1)}, "--task.model.out-ch 3"),
        ({"augmentation": Augmentation(32, crop=AsIs())}, "--task.augmentation.size 28"),
    ],
)
def test_fields_that_do_not_fit_are_refused_with_the_option_to_set(changes, message):
    with pytest.raises(ConfigError, match=message):
        tokenizer(**changes)
