"""What programs move through memory, and what they keep for their backward pass."""

import jax
import jax.numpy as jnp
import pytest

from jaxformers.costs import flops_of
from jaxformers.costs.hlo import Program
from jaxformers.costs.traffic import moved_bytes, saved_for_backward, unknown_loops


def test_bytes_moved_are_xlas_where_there_is_no_loop():
    done = jax.jit(lambda a, b: jnp.tanh(a @ b).sum(0)).lower(*[jnp.ones((512, 512))] * 2).compile()
    counted = moved_bytes(Program.parse(done.as_text()))
    assert counted == pytest.approx(done.cost_analysis()["bytes accessed"], rel=0.25)


def test_what_a_loop_moves_counts_in_each_turn():
    def many(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    def moved(layers):
        done = jax.jit(many).lower(jnp.ones((layers, 64, 64)), jnp.ones((64, 64))).compile()
        return moved_bytes(Program.parse(done.as_text()))

    assert moved(20) == pytest.approx(2 * moved(10), rel=0.1)


def test_what_is_kept_for_the_backward_pass_is_a_stack_of_activations():
    def loss(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    done = jax.jit(jax.grad(loss)).lower(jnp.ones((7, 64, 64)), jnp.ones((16, 64))).compile()
    shapes = {
        residual.buffer.shape for residual in saved_for_backward(Program.parse(done.as_text()))
    }
    assert (7, 16, 64) in shapes and (7, 64, 64) not in shapes


LOOP = """
%body (p: (s32[], f32[4,100])) -> (s32[], f32[4,100]) {
  %p = (s32[], f32[4,100]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %stack = f32[4,100] get-tuple-element(%p), index=1
  %row = f32[100]{0:T(128)S(1)} broadcast(%i), dimensions={}
  %f = f32[4,100] fusion(%stack, %i, %row), kind=kLoop, calls=%written
  %one = s32[] constant(1)
  %next = s32[]{:T(128)S(1)} add(%i, %one)
  ROOT %t = (s32[], f32[4,100]) tuple(%next, %f)
}
%condition (p.1: (s32[], f32[4,100])) -> pred[] {
  %p.1 = (s32[], f32[4,100]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %n = s32[] constant(4)
  ROOT %lt = pred[] compare(%i.1, %n), direction=LT
}
ENTRY %main (a: f32[4,100]) -> (s32[], f32[4,100]) {
  %a = f32[4,100] parameter(0)
  %zero = s32[] constant(0)
  %state = (s32[], f32[4,100]) tuple(%zero, %a)
  ROOT %w = (s32[], f32[4,100]) while(%state), condition=%condition, body=%body
}
"""


def test_a_slice_that_a_loop_writes_into_a_stack_counts_once_and_on_chip_memory_not_at_all():
    # Each of 4 turns reads its counter twice, writes a row of 400 bytes, adds (8) and compares (9).
    assert moved_bytes(Program.parse(LOOP)) == 4 * (400 + 4 + 4 + 8 + 9)


STARTS = """
ENTRY %main (a: f32[4,100]) -> f32[8,100] {
  %a = f32[4,100] parameter(0)
  %near = (f32[4,100], f32[4,100]{1,0:S(1)}, u32[]) copy-start(%a)
  %near.1 = f32[4,100]{1,0:S(1)} copy-done(%near)
  %row = ((f32[4,100]), f32[1,100]{1,0:S(1)}, s32[]) slice-start(%a), slice={[0:1], [0:100]}
  %row.1 = f32[1,100]{1,0:S(1)} slice-done(%row)
  %all = (f32[4,100], f32[8,100]) all-gather-start(%a), dimensions={0}
  ROOT %all.1 = f32[8,100] all-gather-done(%all)
}
"""


def test_what_is_started_counts_by_what_it_carries():
    # A copy onto the chip, one row of it, and a gather that reads one array and writes another.
    assert moved_bytes(Program.parse(STARTS)) == 1600 + 400 + (1600 + 3200)


def test_a_small_loop_of_unknown_length_does_not_weigh_and_one_with_products_does():
    x, w = jnp.ones((512, 512)), jnp.ones((512, 512))

    def draws(x, w, key):
        return jnp.tanh(x @ w) * jax.random.beta(key, 1.0, 1.0)

    def until(x, w, key):
        return jax.lax.while_loop(lambda x: x.sum() < 100.0, lambda x: x @ w, x)

    for step, weigh, products in ((draws, 0, 0), (until, 1, 1)):
        traced = jax.jit(step).trace(x, w, jax.random.key(0))
        program = Program.parse(traced.lower().compile().as_text())
        loops = [op for _, op in program if op.opcode == "while" and program.trip_count(op) is None]
        assert loops and len(unknown_loops(program)) == weigh
        counted = flops_of(traced.jaxpr).unknown_loops
        assert sum(turn.matmul > 0 for turn in counted) == products
