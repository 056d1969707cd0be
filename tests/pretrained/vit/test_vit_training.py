"""20 steps of AdamW from Hugging Face's weights follow torch's, on one device and on eight."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import vit_cases as cases
from folders import write

from jaxformers.pretrained import load_pretrained
from jaxformers.sharding import MeshConfig, make_mesh, put_batch, shardings


def loss_of(name, model):
    def classification(params, batch):
        logits = model.apply({"params": params}, batch["images"], train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return losses.mean()

    def painting(params, batch):
        return model.apply({"params": params}, batch["images"], batch["noise"], train=True).loss

    return classification if name == "vit" else painting


def trained(name, model, params, mesh):
    """Losses of 20 steps, and the parameters after them."""
    tx = optax.adamw(cases.RATE, 0.9, 0.95, weight_decay=cases.DECAY)
    loss = loss_of(name, model)

    @jax.jit
    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    params = jax.device_put(params, shardings(params, mesh))
    state, losses = tx.init(params), []
    for i in range(cases.STEPS):
        batch = cases.training_batch(name, i)
        params, state, value = step(params, state, put_batch(batch, mesh))
        losses.append(float(value))
    return losses, params


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 4, 1)], ids=str)
@pytest.mark.parametrize("name", list(cases.TRAINED))
def test_training_follows_torchs(name, shape, tmp_path):
    config, golden = cases.TRAINED[name], json.loads(cases.TRAINING.read_text())[name]
    tensors = cases.weights(config, 0, 0.1, sines=name == "mae")
    model, variables = load_pretrained(write(tmp_path, config, tensors))
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        losses, params = trained(name, model, variables["params"], mesh)
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-5)
    kernel = jnp.asarray(params["patch_embedding"]["kernel"]).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(kernel[::3, :, 1, ::2].ravel(), golden["kernel"], atol=1e-5)
