"""Who computes attention, by target, lengths, mask, dropout and what is wanted of it."""

import dataclasses

import numpy as np
import pytest

from jaxformers.layers import Execution, Mask, choose_backend
from jaxformers.layers.attention.backends import SPLASH_FROM

LONG = SPLASH_FROM
TPU = Execution(target="tpu")
ASKED = dataclasses.replace(TPU, attention="splash")
IDS = np.ones((2, LONG), np.int32)
DENSE = Mask(dense=np.ones((2, 1, 3, 3), bool))


@pytest.mark.parametrize(
    "mask",
    [
        None,
        Mask(),
        Mask(keys=IDS),
        Mask(query_segments=IDS, key_segments=IDS),
        Mask(query_segments=IDS, key_segments=IDS, causal=True),
    ],
)
def test_long_lengths_on_tpu_take_splash_attention(mask):
    assert choose_backend(TPU, LONG, LONG, mask) == ("splash", "")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_other_platforms_take_plain_attention(target):
    execution = dataclasses.replace(TPU, target=target)
    assert choose_backend(execution, LONG, LONG) == ("plain", "")
    with_splash = dataclasses.replace(execution, attention="splash")
    backend = choose_backend(with_splash, LONG, LONG)
    assert backend == ("plain", f"splash attention is for TPU, not {target.upper()}")


def test_who_asks_for_plain_attention_gets_it():
    execution = dataclasses.replace(TPU, attention="plain")
    assert choose_backend(execution, LONG, LONG) == ("plain", "")


@pytest.mark.parametrize("execution", [TPU, ASKED])
@pytest.mark.parametrize(
    ("mask", "case", "reason"),
    [
        (None, {"dropout": True}, "applies no attention dropout"),
        (None, {"probabilities": True}, "gives no probabilities"),
        (None, {"bias": True}, "takes no additive bias"),
        (DENSE, {}, "takes no dense mask"),
        (Mask(causal=True), {}, "takes no causal mask over unequal lengths"),
    ],
)
def test_what_splash_attention_cannot_do_is_plain_with_the_reason(execution, mask, case, reason):
    backend = choose_backend(execution, LONG, LONG + 1, mask, **case)
    assert backend == ("plain", f"splash attention {reason}")


@pytest.mark.parametrize(("queries", "keys"), [(LONG - 1, LONG), (1, 10 * LONG)])
def test_short_lengths_take_splash_attention_only_when_asked(queries, keys):
    backend = choose_backend(TPU, queries, keys)
    assert backend.name == "plain" and f"below a length of {LONG}" in backend.reason
    assert choose_backend(ASKED, queries, keys).name == "splash"


def test_without_a_mesh_splash_attention_must_be_asked_for():
    backend = choose_backend(TPU, LONG, LONG, chip=None)
    assert backend == ("plain", "no mesh is in force (jax.set_mesh)")
    assert choose_backend(ASKED, LONG, LONG, chip=None).name == "splash"


@pytest.mark.parametrize("execution", [TPU, ASKED])
def test_chips_that_the_kernel_does_not_compile_for_take_plain_attention(execution):
    for chip in ("TPU v2", "TPU v3"):
        backend = choose_backend(execution, LONG, LONG, chip=chip)
        assert backend == ("plain", f"splash attention needs a TPU v4 or later, not a {chip}")
    for chip in ("TPU v4", "TPU v5 lite", "TPU7x"):
        assert choose_backend(execution, LONG, LONG, chip=chip).name == "splash"
