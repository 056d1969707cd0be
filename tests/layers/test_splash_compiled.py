"""Splash attention compiled for TPU chips that are not there, by libtpu."""

import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxformers.layers import BlockConfig, EncoderStack, Execution, Mask
from jaxformers.layers.attention.splash import splash_attention
from jaxformers.planning.topologies import tpu_pod
from jaxformers.sharding import MeshConfig, batch_sharding, make_mesh, shardings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None,
        reason="the TPU compiler is not installed: pip install -e '.[tpu]'",
    ),
]


def mesh_on(topology):
    return make_mesh(MeshConfig(data=-1, tensor=2), tpu_pod(topology).devices)


def temporaries(attention, examples=16, length=2048):
    """Bytes per chip of a rolled, padded block's gradient beside its inputs and outputs."""
    mesh = mesh_on("v5e:2x2")
    execution = Execution(dtype="bfloat16", target="tpu", attention=attention)
    config = BlockConfig(768, 12, 3072, activation="gelu", norm_position="pre")
    stack = EncoderStack(config, 1, execution=execution)
    rows = partial(jax.ShapeDtypeStruct, sharding=batch_sharding(mesh))
    x, tokens = rows((examples, length, 768), jnp.bfloat16), rows((examples, length), jnp.int32)

    def loss(params, x, tokens):
        out = stack.apply({"params": params}, x, Mask(keys=tokens))
        return jnp.square(out.astype(jnp.float32)).sum()

    with jax.set_mesh(mesh):
        params = jax.eval_shape(lambda x: stack.init(jax.random.key(0), x), x)["params"]
        params = jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            params,
            shardings(params, mesh),
        )
        compiled = jax.jit(jax.grad(loss)).lower(params, x, tokens).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_a_blocks_gradient_at_length_2048_takes_at_most_a_fifth_of_the_plain_memory():
    splash, plain = temporaries("auto"), temporaries("plain")
    assert plain > 2**30
    assert splash <= plain / 5


@pytest.mark.parametrize(
    ("topology", "width"),
    [
        ("v4:2x2x1", 64),
        ("v5e:2x2", 20),
        ("v5e:2x2", 80),
        ("v5p:2x2x1", 64),
        ("v6e:2x2", 64),
        ("tpu7x:2x2x1", 64),
    ],
)
def test_the_kernel_and_its_gradient_compile_for_all_masks(topology, width):
    mesh = mesh_on(topology)
    rows = partial(jax.ShapeDtypeStruct, sharding=batch_sharding(mesh))
    q, ids = rows((16, 4, 577, width), jnp.bfloat16), rows((16, 577), jnp.int32)

    def total(q, ids):
        masks = (None, Mask(keys=ids), Mask(causal=True), Mask(None, ids, ids, causal=True))
        return sum(splash_attention(q, q, q, mask).astype(jnp.float32).sum() for mask in masks)

    with jax.set_mesh(mesh):
        assert jax.jit(jax.grad(total)).lower(q, ids).compile()
