"""The text of compiled programs: buffers with their tiles, and how often computations run."""

import operator
import re

import jax
import jax.numpy as jnp
import pytest

from jaxformers.costs.hlo import Program
from jaxformers.costs.hlo_operations import parse_buffers


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
    (buffer,) = parse_buffers(text)
    assert (buffer.bytes, buffer.padded) == (size, padded)


def test_a_tuples_buffers_come_in_order_and_small_memory_is_noted():
    buffers = parse_buffers("(f32[2]{0}, /*index=1*/bf16[4,8]{1,0:T(4,128)(2,1)S(1)}, u32[])")
    assert [str(buffer) for buffer in buffers] == ["f32[2]", "bf16[4,8]", "u32[]"]
    assert [buffer.on_chip for buffer in buffers] == [False, True, False]


def test_nested_loops_run_as_often_as_both_lengths_say():
    def inner(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=5)[0], None

    compiled = jax.jit(lambda x, ws: jax.lax.scan(inner, x, ws)[0])
    program = Program.parse(
        compiled.lower(jnp.ones((8, 8)), jnp.ones((7, 8, 8))).compile().as_text()
    )
    loops = sorted(program.trip_count(op) for _, op in program if op.opcode == "while")
    assert loops == [5, 7]
    bodies = [op.attribute("body") for _, op in program if op.opcode == "while"]
    assert sorted(program.times[body] for body in bodies) == [7, 35]


def test_a_loop_whose_length_is_not_known_counts_once():
    def until(x):
        return jax.lax.while_loop(lambda x: x.sum() < 100.0, lambda x: x * 2, x)

    program = Program.parse(jax.jit(until).lower(jnp.ones(4)).compile().as_text())
    (loop,) = (op for _, op in program if op.opcode == "while")
    assert program.trip_count(loop) is None and program.times[loop.attribute("body")] == 1


def untold(fn, *shapes) -> Program:
    """A compiled program without the trip counts that XLA writes for CPUs, and not for TPUs."""
    text = jax.jit(fn).lower(*(jnp.ones(shape) for shape in shapes)).compile().as_text()
    return Program.parse(re.sub(r'"known_trip_count":\{[^}]*\},?', "", text))


def turns(program: Program) -> list[int | None]:
    return sorted(program.trip_count(op) for _, op in program if op.opcode == "while")


@pytest.mark.parametrize(
    ("start", "step", "limit", "test", "expected"),
    [
        (0, 1, 10, operator.lt, 10),
        (3, 1, 10, operator.lt, 7),
        (3, 1, 10, operator.le, 8),
        (1, 3, 10, operator.lt, 3),
        (0, 4, 10, operator.lt, 3),
        (6, -1, 0, operator.gt, 6),
        (9, -2, 0, operator.ge, 5),
        (-4, 1, 5, operator.ne, 9),
    ],
)
def test_a_loops_turns_follow_from_the_start_step_and_end_of_its_counter(
    start, step, limit, test, expected
):
    def loop(x):
        def body(state):
            i, x = state
            return i + step, jnp.sin(x @ x)

        return jax.lax.while_loop(lambda s: test(s[0], limit), body, (start, x))[1]

    program = untold(loop, (8, 8))
    assert turns(program) == [expected]
    (body,) = (op.attribute("body") for _, op in program if op.opcode == "while")
    assert program.times[body] == expected


def test_nested_loops_turns_follow_from_their_counters_too():
    def inner(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, None, length=5)[0], None

    assert turns(untold(lambda x, ws: jax.lax.scan(inner, x, ws)[0], (8, 8), (7, 8, 8))) == [5, 7]


@pytest.mark.parametrize(
    "test",
    [lambda i, n, x: i < n, lambda i, n, x: (i < 9) & (x.sum() > 0)],
    ids=["an end that is an argument", "an end that may come before"],
)
def test_a_loop_that_ends_by_more_than_its_counter_has_no_known_length(test):
    def loop(x, n):
        def body(state):
            return state[0] + 1, jnp.sin(state[1] @ state[1])

        return jax.lax.while_loop(lambda s: test(s[0], n[0], s[1]), body, (0, x))[1]

    assert turns(untold(loop, (8, 8), (1,))) == [None]


# As libtpu writes a loop that counts down: constants moved into it, its start copied.
TPU = """
%body (p: (s32[], f32[256,128], s32[])) -> (s32[], f32[256,128], s32[]) {
  %minus = s32[]{:T(128)} constant(-1), metadata={op_name="jit(loop)"}
  %p = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}, s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %sum = s32[]{:T(128)} add(%i, %minus), metadata={op_name="jit(loop)/while/body/add"}
  %x = f32[256,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %k = s32[]{:T(128)} get-tuple-element(%p), index=2
  %r = f32[256,128]{1,0:T(8,128)} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  ROOT %t = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%sum, %r, %k)
}
%condition (q: (s32[], f32[256,128], s32[])) -> pred[] {
  %end = s32[]{:T(128)} constant(0)
  %q = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}, s32[]{:T(128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %gt = pred[]{:T(512)} compare(%j, %end), direction=GT
}
ENTRY %main (a: f32[256,128]) -> f32[256,128] {
  %six = s32[]{:T(128)} constant(6)
  %a = f32[256,128]{1,0:T(8,128)} parameter(0)
  %c = s32[]{:T(128)} copy(%six)
  %s = (s32[]{:T(128)}, f32[256,128]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%c, %a, %six)
  %w = (s32[], f32[256,128], s32[]) while(%s), condition=%condition, body=%body
  ROOT %o = f32[256,128]{1,0:T(8,128)} get-tuple-element(%w), index=1
}
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("", ""), 6),
        (("GT", "GE"), 7),
        (("compare(%j, %end), direction=GT", "compare(%end, %j), direction=LT"), 6),
        (("constant(6)", "constant(-1)"), 0),
        (("constant(-1)", "constant(1)"), None),  # for ever, or until the counter overflows
        (("add(%i, %minus)", "multiply(%i, %minus)"), None),
        (("copy(%six)", "custom-call(%a)"), None),
    ],
)
def test_a_tpus_loop_is_counted_by_its_text(change, expected):
    assert turns(Program.parse(TPU.replace(*change))) == [expected]
