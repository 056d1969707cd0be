"""The text of compiled programs: buffers with their tiles, and how often computations run."""

import jax
import jax.numpy as jnp
import pytest

from jaxformers.costs.hlo import Program, buffers


@pytest.mark.parametrize(
    ("text", "size", "padded"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096, 4096),
        ("f32[12,64]{1,0:T(8,128)}", 3072, 16 * 128 * 4),
        ("bf16[3,64,197]{2,1,0:T(8,128)(2,1)}", 75648, 3 * 64 * 256 * 2),
        ("bf16[2,64,128]{1,2,0:T(8,128)(2,1)}", 32768, 2 * 128 * 128 * 2),
        ("f32[10]{0:T(1024)}", 40, 4096),
        ("pred[]{:T(512)}", 1, 1),
        ("s4[6]{0}", 3, 3),
    ],
)
def test_the_tiles_of_a_tpu_pad_the_two_fastest_dimensions(text, size, padded):
    (found,) = buffers(text)
    assert (found.bytes, found.padded) == (size, padded)


def test_a_tuples_buffers_come_in_order_and_small_memory_is_noted():
    found = buffers("(f32[2]{0}, /*index=1*/bf16[4,8]{1,0:T(4,128)(2,1)S(1)}, u32[])")
    assert [str(each) for each in found] == ["f32[2]", "bf16[4,8]", "u32[]"]
    assert [each.on_chip for each in found] == [False, True, False]


def test_nested_loops_run_as_often_as_both_lengths_say():
    def inner(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=5)[0], None

    compiled = jax.jit(lambda x, ws: jax.lax.scan(inner, x, ws)[0])
    program = Program.parse(
        compiled.lower(jnp.ones((8, 8)), jnp.ones((7, 8, 8))).compile().as_text()
    )
    loops = sorted(program.turns(op) for _, op in program if op.kind == "while")
    assert loops == [5, 7]
    bodies = [op.attribute("body") for _, op in program if op.kind == "while"]
    assert sorted(program.times[body] for body in bodies) == [7, 35]


def test_a_loop_whose_length_is_not_known_counts_once():
    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100.0, lambda x: x * 2, x)

    program = Program.parse(jax.jit(until).lower(jnp.ones(4)).compile().as_text())
    (loop,) = (op for _, op in program if op.kind == "while")
    assert program.turns(loop) is None and program.times[loop.attribute("body")] == 1
