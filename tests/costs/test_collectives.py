"""Collectives read from HLO: kind, mesh axes, bytes, loops; and XLA's warnings."""

import os

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxformers.costs.collectives import collectives, totals
from jaxformers.costs.xla_warnings import captured_xla_warnings, warnings_are_seen

SIZES = {"data": 2, "fsdp": 2, "tensor": 2}
MESH = jax.make_mesh((2, 2, 2), tuple(SIZES), axis_types=(AxisType.Auto,) * 3)


def found_in(fn, shape, before, after):
    """The collectives that bring an array from one sharding to another through `fn`."""
    where, then = (NamedSharding(MESH, PartitionSpec(*axes)) for axes in (before, after))
    x = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
    program = jax.jit(fn, out_shardings=then).lower(x).compile()
    return collectives(program.as_text(), SIZES)


@pytest.mark.parametrize(
    "axes",
    [("data",), ("fsdp",), ("tensor",), ("data", "fsdp"), ("fsdp", "tensor"), ("data", "tensor")],
)
def test_a_sum_over_divided_rows_is_an_all_reduce_over_those_axes(axes):
    (collective,) = found_in(lambda x: x.sum(0), (8, 6), (axes,), ())
    assert (collective.kind, set(collective.axes), collective.bytes) == (
        "all-reduce",
        set(axes),
        24,
    )
    assert "reduce_sum" in collective.op_name and not collective.looped


def test_a_divided_array_made_whole_is_an_all_gather():
    (collective,) = found_in(lambda x: x * 2, (8, 6), ("fsdp",), ())
    assert (collective.kind, collective.axes, collective.bytes) == (
        "all-gather",
        ("fsdp",),
        8 * 6 * 4,
    )
    assert str(collective).startswith("all-gather over fsdp of 192 bytes (%")


def test_another_dimension_divided_is_an_all_to_all():
    operations = found_in(lambda x: x * 2, (8, 6), ("tensor", None), (None, "tensor"))
    assert {operation.kind for operation in operations} <= {
        "all-to-all",
        "collective-permute",
    } and operations
    assert all(operation.axes == ("tensor",) for operation in operations)


def test_a_collective_in_a_loop_is_noted():
    def loop(x):
        def body(_, y):
            gathered = jax.lax.with_sharding_constraint(y, NamedSharding(MESH, PartitionSpec()))
            gathered = jnp.sin(gathered @ gathered)
            return jax.lax.with_sharding_constraint(
                gathered, NamedSharding(MESH, PartitionSpec("fsdp"))
            )

        return jax.lax.fori_loop(0, 5, body, x)

    operations = found_in(loop, (8, 8), ("fsdp",), ("fsdp",))
    assert any(operation.looped and operation.times == 5 for operation in operations)


LINE = "  %ag.1 = f32[4,8]{1,0} all-gather(%p), channel_id=1, replica_groups=%s, dimensions={0}"


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",)),
        ("[4,2]<=[8]", ("tensor",)),
        ("[4,2]<=[4,2]T(1,0)", ("fsdp",)),
        ("{{0,3},{1,2},{4,7},{5,6}}", ("?",)),
        ("[4,2]<=[2,4]T(1,0)", ("data",)),
        ("[2,4]<=[8]", ("fsdp", "tensor")),
        ("[1,8]<=[8]", ("data", "fsdp", "tensor")),
        ("{}", ("data", "fsdp", "tensor")),
        ("mesh['a'=2,'b'=2,'c'=2] {'b'}", ("fsdp",)),
        ("mesh['a'=2,'b'=4] {'a'}", ("data",)),
        ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", ("data",)),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",)),
        ("{{0},{1},{2},{3},{4},{5},{6},{7}}", ()),
    ],
)
def test_the_three_ways_to_write_groups_become_mesh_axes(groups, axes):
    (collective,) = collectives(LINE.replace("%s", groups), SIZES)
    assert collective.axes == axes and collective.bytes == 128


def test_a_permutation_moves_along_an_axis():
    line = (
        "  %collective-permute.3 = bf16[4]{0} collective-permute(%p), "
        "source_target_pairs={{0,2},{2,0},{1,3},{3,1},{4,6},{6,4},{5,7},{7,5}}"
    )
    (collective,) = collectives(line, SIZES)
    assert (collective.kind, collective.axes, collective.bytes) == (
        "collective-permute",
        ("fsdp",),
        8,
    )


# Types as XLA's shape inference has them: (operands, results, contexts...), but for an all-reduce.
STARTS = {
    "all-gather": ("(f32[2,8]{1,0}, f32[4,8]{1,0})", 128),
    "all-gather of two": ("((f32[2]{0}, f32[8]{0}), (f32[4]{0}, f32[16]{0}))", 80),
    "all-reduce": ("f32[1024]{0}", 4096),
    "all-reduce of two": ("(f32[1024]{0:T(1024)}, /*index=1*/f32[512]{0:T(512)S(1)})", 6144),
    "all-reduce of three": ("(f32[1024]{0}, f32[512]{0}, f32[10]{0})", 6184),
    "reduce-scatter": ("((f32[8]{0}), f32[4]{0}, u32[]{:S(2)})", 16),
    "all-to-all": ("((f32[8]{0}, f32[8]{0}), (f32[8]{0}, f32[8]{0}), s32[])", 64),
}


@pytest.mark.parametrize("case", STARTS)
def test_an_asynchronous_start_counts_its_results_and_its_end_counts_nothing(case):
    kind, (shape, size) = case.split(" ")[0], STARTS[case]
    text = (
        f"  %s = {shape} {kind}-start(%p, %q), replica_groups=[4,2]<=[8]\n"
        f"  %d = f32[4,8]{{1,0}} {kind}-done(%s)\n"
    )
    assert totals(collectives(text, SIZES)) == {f"{kind} tensor": (1, size)}


@pytest.mark.parametrize(
    "shape",
    [
        # A TPU's, with the two contexts that it hands on.
        "(f32[256,128]{1,0:T(8,128)}, f32[256,128]{1,0:T(8,128)}, u32[]{:S(2)}, u32[]{:S(2)})",
        "(f32[256,128]{1,0}, f32[256,128]{1,0})",
        "((f32[64,128], f32[192,128]), (f32[64,128], f32[192,128]), u32[], u32[])",
    ],
)
def test_a_permutation_that_is_started_counts_what_it_brings_not_its_contexts(shape):
    pairs = "source_target_pairs={{0,2},{2,0},{1,3},{3,1},{4,6},{6,4},{5,7},{7,5}}"
    (collective,) = collectives(f"  %c = {shape} collective-permute-start(%p), {pairs}", SIZES)
    assert (collective.bytes, collective.axes) == (131072, ("fsdp",))
    assert set(collective.types) == {"f32"} and collective.shapes[-1] in {(256, 128), (192, 128)}


def test_a_collective_in_an_asynchronous_computation_counts_once():
    text = """
%wrapped (p: f32[8]) -> f32[4] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[4]{0} reduce-scatter(%p), replica_groups=[4,2]<=[8], dimensions={0}, to_apply=%a
}
ENTRY %main (x: f32[8]) -> f32[4] {
  %x = f32[8]{0} parameter(0)
  %s = ((f32[8]{0}), f32[4]{0}, u32[]) async-start(%x), calls=%wrapped
  ROOT %d = f32[4]{0} async-done(%s), calls=%wrapped
}
"""
    (collective,) = collectives(text, SIZES)
    assert (collective.kind, collective.bytes, collective.times) == ("reduce-scatter", 16, 1)


def test_a_wasteful_program_is_caught_at_the_file_descriptor():
    assert warnings_are_seen(MESH)


def test_other_output_passes_through(capfd):
    with captured_xla_warnings() as warnings:
        os.write(2, b"a line of another kind\n")
    assert not warnings and "a line of another kind" in capfd.readouterr().err
