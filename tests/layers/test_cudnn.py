"""Attention by cuDNN: the same call through JAX's own stand-in, and lowered for CUDA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from jaxformers.costs import count_flops
from jaxformers.layers import Execution, Mask, MultiHeadAttention, choose_backend
from jaxformers.layers.attention import multi_head
from jaxformers.layers.attention.cudnn import cudnn_attention
from jaxformers.layers.attention.multi_head import attention_probabilities
from jaxformers.sharding import MeshConfig, make_mesh

RNG = np.random.default_rng(0)
B, H, T, S, K = 4, 2, 12, 10, 8
stand_in = partial(cudnn_attention, implementation="xla")
GPU = Execution(dtype="bfloat16", target="gpu", attention="cudnn")
# The last example may see nothing.
PADDING = np.arange(S)[None] < np.array([S, 4, 1, 0])[:, None]
MASKS = {
    "none": None,
    "padding": Mask(keys=PADDING),
    "segments": Mask(
        keys=PADDING.astype(np.int32),
        query_segments=np.sort(RNG.integers(0, 3, (B, T))),
        key_segments=np.sort(RNG.integers(0, 4, (B, S))),
    ),
    "causal": Mask(causal=True),
    "dense": Mask(dense=RNG.integers(0, 2, (B, H, T, S)).astype(bool)),
}


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def plain(q, k, v, mask):
    probs = attention_probabilities(q, k, mask).astype(v.dtype)
    return jnp.einsum("BHTS,BHSK->BHTK", probs, v)


def values_and_gradients(attend, q, k, v, weight, mask):
    def total(q, k, v):
        out = attend(q, k, v, mask)
        return (out * weight).sum(), out

    grads, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


@pytest.mark.parametrize("mesh", [None, MeshConfig(2, 2, 2)], ids=["alone", "mesh"])
@pytest.mark.parametrize("name", MASKS)
def test_what_cudnn_is_asked_for_is_plain_attention_with_its_gradients(name, mesh):
    case = normal(B, H, T, K), *normal(2, B, H, S, K), normal(B, H, T, K), MASKS[name]
    expected = values_and_gradients(plain, *case)
    if mesh is None:
        ours = values_and_gradients(stand_in, *case)
    else:
        with jax.set_mesh(make_mesh(mesh)):
            ours = values_and_gradients(stand_in, *case)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", MASKS)
def test_it_is_lowered_for_cuda_to_the_fused_kernel_and_its_backward_pass(name, monkeypatch):
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91200)
    shapes = [jax.ShapeDtypeStruct((B, H, n, K), jnp.bfloat16) for n in (T, S, S)]
    gradient = jax.jit(jax.grad(lambda q, k, v: cudnn_attention(q, k, v, MASKS[name]).sum()))
    text = gradient.trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmha" in text and "Backward" in text


def test_its_products_are_counted(monkeypatch):
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91200)
    shapes = [jax.ShapeDtypeStruct((B, H, n, K), jnp.bfloat16) for n in (T, S, S)]

    def total(q, k, v):
        return cudnn_attention(q, k, v).astype(jnp.float32).sum()

    scores = 2 * B * H * T * S * K
    assert count_flops(total, *shapes) == 2 * scores
    assert count_flops(jax.grad(total, (0, 1, 2)), *shapes) == (2 + 5) * scores


def test_it_is_taken_only_where_it_is_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(multi_head, "cudnn_attention", lambda q, *_: calls.append(1) or q)
    x = normal(2, 4, 16)
    for execution, times in ((Execution("bfloat16", target="gpu"), 0), (GPU, 1)):
        layer = MultiHeadAttention(16, 2, 8, execution=execution)
        variables = layer.init(jax.random.key(0), x)
        layer.apply(variables, x)
        assert len(calls) == times


@pytest.mark.parametrize(
    ("execution", "case", "reason"),
    [
        (Execution("bfloat16", "cpu", attention="cudnn"), {}, "is for GPU, not CPU"),
        (Execution("float32", "gpu", attention="cudnn"), {}, "computes in bfloat16, not float32"),
        (GPU, {"probabilities": True}, "gives no probabilities"),
        (GPU, {"dropout": True}, "applies no attention dropout"),
        (GPU, {"head_width": 12}, "takes heads whose width 8 divides, up to 128"),
        (GPU, {"head_width": 160}, "takes heads whose width 8 divides, up to 128"),
        (GPU, {"mask": Mask(causal=True)}, "takes masks over even lengths only"),
    ],
)
def test_what_cudnn_cannot_do_is_plain_with_the_reason(execution, case, reason):
    backend = choose_backend(execution, 7, 7, **case)
    assert backend == ("plain", f"cuDNN attention {reason}")
    assert choose_backend(GPU, 7, 7).name == choose_backend(GPU, 8, 8, Mask(causal=True)).name
