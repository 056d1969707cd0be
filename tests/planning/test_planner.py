"""Plans hold what they say: on eight devices of this machine, where it can be looked at."""

import json
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxformers.cli import command
from jaxformers.costs.collectives import Collective, collectives
from jaxformers.data import BundledDocuments, BundledPairs, Packing, Phase, Pretraining
from jaxformers.errors import ShardingError
from jaxformers.models import BertConfig, TransformerConfig
from jaxformers.planning import figure, local_pod, plan, planner, text, to_json
from jaxformers.planning.planner import _state, chosen_mesh
from jaxformers.planning.program import Compiled
from jaxformers.planning.report import remedies
from jaxformers.planning.roofline import Roofline
from jaxformers.planning.wastes import wastes
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks import MaskedLanguage, Translation
from jaxformers.training.config.overrides import override
from jaxformers.training.experiment import Experiment
from jaxformers.training.state import abstract_state, init_state
from jaxformers.training.step import step_flops

ROWS, SOURCE, TARGET, LAYERS, VOCABULARY = 16, 24, 16, 1, 96


def experiment(width: int = 32, feed_forward: int = 64, **changes) -> Experiment:
    model = TransformerConfig(
        VOCABULARY,
        width=width,
        heads=4,
        feed_forward=feed_forward,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        dropout=0.0,
    )
    task = Translation(model, BundledPairs(), batching=Packing(SOURCE, TARGET, ROWS))
    return replace(Experiment("toy", task, steps=100, vocab_multiple=8), **changes)


def pod(memory: float = 16e9):
    local = local_pod(jax.devices()[:8], "v5e")
    return replace(local, chip=replace(local.chip, memory=memory))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def divided():
    return plan(experiment(), pod(), mesh=MeshConfig(2, 2, 2), price=2.0)


# ---------------------------------------------------------------- truth


def test_planned_bytes_are_those_of_the_live_state(divided):
    e, mesh = divided.experiment, divided.mesh
    with jax.set_mesh(mesh):
        model = e.task.module(e.execution(mesh))
        abstract = abstract_state(e, model, mesh)
        where = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        state = jax.jit(lambda: init_state(e, model), out_shardings=where)()
    first = jax.devices()[0]
    live = {
        kind: sum(
            shard.data.nbytes
            for leaf in jax.tree.leaves(tree)
            for shard in leaf.addressable_shards
            if shard.device == first
        )
        for kind, tree in (("parameters", state.params), ("optimizer", state.opt_state))
    }
    assert {kind: divided.state[kind] for kind in live} == live
    planned = divided.kinds(divided.worst)
    assert sum(planned.values()) == divided.worst.compiled.needed


def test_flops_are_those_of_xla_and_of_the_closed_formula():
    d, forward = 256, 1024  # wide, so that products are nearly all
    e = experiment(d, forward)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    (shape,) = e.task.batch_shapes()
    model = e.task.module(e.execution(mesh))
    variables = jax.eval_shape(lambda: e.task.init(model, jax.random.key(0)))
    loss = jax.jit(lambda v, b: e.task.loss(model, v, b, train=True).total)
    cost = loss.lower(variables, shape).compile().cost_analysis()["flops"]
    s, t = ROWS * SOURCE, ROWS * TARGET
    encoder = 8 * s * d * d + 4 * s * SOURCE * d + 4 * s * d * forward
    decoder = (8 * t + 4 * t + 4 * s) * d * d + 4 * t * (TARGET + SOURCE) * d + 4 * t * d * forward
    formula = LAYERS * (encoder + decoder) + 2 * t * d * VOCABULARY
    planned = step_flops(e, shape) / 3  # a backward pass takes twice its forward pass
    assert planned == pytest.approx(formula, rel=0.02)
    assert planned == pytest.approx(cost, rel=0.02)


MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def program(fn, *specs, mesh=MESH, out=None):
    structs = [
        jax.ShapeDtypeStruct(s, jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(*axes)))
        for s, axes in specs
    ]
    where = None if out is None else NamedSharding(mesh, PartitionSpec(*out))
    return jax.jit(fn, out_shardings=where).lower(*structs).compile()


@pytest.mark.parametrize(
    ("weights", "hidden", "expected"),
    [
        # A gradient of each of L layers is summed over all devices.
        ((), ("data",), [("all-reduce", 5, 32 * 32 * 4)]),
        # Each layer's weights are gathered for the forward pass and again for the backward pass.
        (("data",), ("data",), [("all-gather", 10, 32 * 32 * 4)]),
        # Each layer's products are summed over the features: forward, and for the input's gradient.
        ((None, "data"), (), [("all-gather", 5, 16 * 32 * 4)]),
    ],
    ids=["data", "fsdp", "tensor"],
)
def test_collectives_of_toys_are_those_counted_by_hand(weights, hidden, expected):
    def loss(w, x):
        def layer(x, w):
            kernel = (
                w
                if weights != ("data",)
                else jax.lax.with_sharding_constraint(w, NamedSharding(MESH, PartitionSpec()))
            )
            y = jnp.sin(x @ kernel)
            return jax.lax.with_sharding_constraint(
                y, NamedSharding(MESH, PartitionSpec(*hidden))
            ), None

        out, _ = jax.lax.scan(jax.checkpoint(layer), x, w)
        return (out**2).sum()

    stack = (None, *weights)
    operations = collectives(
        program(jax.grad(loss), ((5, 32, 32), stack), ((16, 32), hidden), out=stack).as_text(),
        {"data": 8},
    )
    counted = {}
    for operation in operations:
        if operation.bytes > 64:
            counted[operation.kind, operation.bytes] = (
                counted.get((operation.kind, operation.bytes), 0) + operation.times
            )
    for kind, times, size in expected:
        assert counted.get((kind, size)) == times, counted


def test_bytes_on_the_wire_are_those_of_a_ring():
    (collective,) = collectives(
        program(lambda x: x.sum(0), ((8, 100), ("data",)), out=()).as_text(), {"data": 8}
    )
    assert collective.wire == pytest.approx(2 * 7 / 8 * 400)
    (collective,) = collectives(
        program(lambda x: x * 2, ((8, 100), ("data",)), out=()).as_text(), {"data": 8}
    )
    assert collective.wire == pytest.approx(7 / 8 * 3200)


# ---------------------------------------------------------------- ranges and verdicts


@pytest.mark.parametrize("seconds", [(1, 0, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1), (3, 1, 2, 2)])
def test_the_ends_of_a_range_are_at_most_three_apart(seconds):
    low, high = Roofline(*seconds).range
    assert max(seconds[:2]) < low < high <= 3 * low


def test_a_plan_says_that_it_fits_and_what_the_run_costs(divided):
    page = text(divided)
    assert divided.fits and "fits with 100 % to spare" in page
    assert divided.hours[1] <= 3 * divided.hours[0]
    assert "at 2 a chip-hour" in page and "gradients are reduced in f32" in page
    low, high = divided.utilisation(divided.model_flops)
    assert 0 < low < high < 1


@pytest.mark.slow
def test_what_is_too_large_is_refused_with_a_way_out():
    planned = plan(experiment(), pod(memory=1e5), mesh=MeshConfig(2, 2, 2))
    assert not planned.fits
    assert "does not fit: 0.0 GB of 0.0 GB; try" in text(planned) and "--remat full" in text(
        planned
    )
    assert to_json(planned)["remedies"][-1] == "--search"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "accumulate", "options"),
    [
        (36, 2, ["--mesh.data 2 --mesh.fsdp 4"]),  # 8 divides no row of 36, nor 16 rows by 4 parts
        (32, 1, ["--mesh.data 1 --mesh.fsdp 8", "--accumulate 2"]),
    ],
)
def test_ways_out_are_those_that_divide_the_batch_and_the_model(width, accumulate, options):
    wide = experiment(width, accumulate=accumulate, remat="full")
    planned = plan(wide, pod(memory=1e4), mesh=MeshConfig(8, 1, 1))
    assert remedies(planned) == [*options, "--search"]
    for option in options:
        chosen_mesh(override(planned.experiment, option.split(), "plan"), planned.pod, None)


@pytest.mark.slow
def test_the_step_that_is_planned_computes_again_what_the_experiment_says(divided):
    again = plan(experiment(remat="full"), pod(), mesh=MeshConfig(2, 2, 2))
    assert divided.model_flops == again.model_flops == divided.hardware_flops
    assert again.hardware_flops > 1.2 * divided.hardware_flops
    assert again.worst.compiled.saved_activations < divided.worst.compiled.saved_activations


@pytest.mark.slow
def test_a_second_plan_compiles_nothing(divided):
    before = len(_compiled)
    again = plan(experiment(), pod(), mesh=MeshConfig(2, 2, 2))
    assert len(_compiled) == before
    assert again.worst.compiled == divided.worst.compiled


_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: _compiled.append(name) if "backend_compile" in name else None
)


@pytest.mark.slow
def test_a_damaged_result_in_the_cache_is_made_anew(divided, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path))
    small = experiment(8, 8)
    planned = plan(small, pod(), mesh=MeshConfig(8, 1, 1))
    for damaged in ("", '{"collectives": [{}]}', "[]"):
        (file,) = (tmp_path / "plans").glob("*.json")
        file.write_text(damaged)
        again = plan(small, pod(), mesh=MeshConfig(8, 1, 1))
        assert again.worst.compiled.collectives == planned.worst.compiled.collectives


# ---------------------------------------------------------------- mesh


@pytest.mark.parametrize("quick_needs, again", [(80, False), (91, True), (None, True)])
def test_of_several_shapes_those_that_may_need_most_are_compiled_as_train_would(
    divided, monkeypatch, quick_needs, again
):
    """The long phase as it is; the short one at the least effort, unless that leaves it open."""
    compilations = []

    def shape_plan(experiment, pod, mesh, shape, share, effort):
        length = shape["input_ids"].shape[1]
        quick = effort == "least"
        compilations.append((length, quick))
        compiled = Compiled(required=quick_needs if quick else 100, quick=quick)
        return replace(divided.worst, compiled=compiled, shape=shape, share=share)

    monkeypatch.setattr(planner, "_shape_plan", shape_plan)
    phases = (Phase(length=16, rows=8, steps=90), Phase(length=32, rows=8))
    task = MaskedLanguage(BertConfig.tiny(), BundledDocuments(), pretraining=Pretraining(phases))
    planned = planner.plan_on(
        pod(), Experiment("toy", task, steps=100), MeshConfig(8, 1, 1), effort="mixed"
    )
    assert compilations == [(32, False), (16, True), *[(16, False)] * again]
    assert [shape.share for shape in planned.shapes] == [0.9, 0.1]
    assert [shape.compiled.quick for shape in planned.shapes] == [not again, False]


@pytest.mark.parametrize(
    "room, expected", [(2.0, ["least"]), (0.5, ["least"]), (1.02, ["least", "mixed"])]
)
def test_a_quick_plan_near_the_limit_is_made_in_full(divided, monkeypatch, room, expected):
    efforts = []

    def plan_on(pod, experiment, mesh, report, effort):
        efforts.append(effort)
        return replace(divided, pod=pod, warnings=[])

    monkeypatch.setattr(planner, "plan_on", plan_on)
    chips = pod(room * divided.worst.compiled.needed)
    planned = planner.plan(divided.experiment, chips, effort="least")
    assert efforts == expected and planned.fits == (room >= 1)


def test_a_quick_plan_that_does_not_say_what_it_wants_is_near_the_limit(divided):
    shape = replace(divided.worst, compiled=Compiled(quick=True))
    assert replace(divided, shapes=[shape]).near and not divided.near


def test_parts_that_divide_no_batch_are_an_error():
    with pytest.raises(ShardingError, match=r"a batch of 16 rows .* in 7 parts"):
        plan(experiment(accumulate=7), pod())


def test_slices_that_the_pod_does_not_have_are_an_error():
    with pytest.raises(ShardingError, match=r"slices=2, but .* has 1; give --slices 2"):
        chosen_mesh(experiment(), pod(), MeshConfig(8, 1, 1, slices=2))


def test_a_mesh_that_does_not_divide_the_batch_is_an_error_when_it_was_asked_for():
    with pytest.raises(ShardingError, match="batch of 16 rows does not divide over data=8"):
        plan(experiment(accumulate=4), pod(), mesh=MeshConfig(8, 1, 1))


def test_an_experiments_own_mesh_that_does_not_fit_is_replaced_and_said():
    mesh, notes = chosen_mesh(experiment(mesh=MeshConfig(3, 1, 1), accumulate=4), pod(), None)
    assert mesh == MeshConfig(4, 1, 2)
    assert notes[0].startswith("mesh 4x1x2, because its own does not fit: ")


def test_slices_lie_outermost_on_data():
    two = replace(pod(), slices=2)
    assert chosen_mesh(experiment(), two, None)[0] == MeshConfig(8, 1, 1, 2)
    with pytest.raises(ShardingError, match="2 slices do not divide data=1"):
        chosen_mesh(experiment(), two, MeshConfig(1, 8, 1))


# ---------------------------------------------------------------- wastes


@pytest.mark.slow
def test_known_wastes_are_named():
    planned = plan(experiment(), pod(memory=1e6), mesh=MeshConfig(8, 1, 1))
    assert planned.worst.compiled.compiles
    warnings = " ".join(planned.warnings)
    assert "is replicated on every device: --mesh.fsdp 8 would shard it" in warnings
    assert "a device's share of the batch is small" in warnings


def gather(axes: tuple[str, ...], op_name: str, *shape: int) -> Collective:
    return Collective("g", "all-gather", (shape,), 4 * math.prod(shape), axes, op_name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"collectives": [gather(("tensor",), "jit(step)/jvp()/tanh", 999, 999)]}, "(tanh): 4 MB"),
        ({"collectives": [gather(("data",), "jit(step)/jvp()/tanh", 999, 999)]}, "(tanh): 4 MB"),
        # Pieces of gradients, and a parameter that fsdp divides, are none.
        ({"collectives": [gather(("data",), "transpose(jvp())/dot", 999, 999)]}, ""),
        ({"collectives": [gather(("fsdp",), "jit(step)/jvp()/dot", 32, 64)]}, ""),
        ({"padding": int(2e9), "padded": "bf16[9,1]"}, "2.00 GB only pad arrays"),
        ({"padding": int(2e8), "padded": "bf16[9,1]"}, ""),
    ],
)
def test_gathered_activations_and_padding_are_wastes(divided, changes, message):
    (shape,) = divided.shapes
    empty = replace(shape.compiled, collectives=[])
    planned = replace(divided, shapes=[replace(shape, compiled=replace(empty, **changes))])
    state = _state(planned.experiment, planned.mesh)
    messages = [w for w in wastes(planned, state) if "batch is small" not in w]
    assert len(messages) == bool(message) and message in "".join(messages)


def test_a_large_parameter_that_nothing_divides_is_a_waste(divided):
    state = _state(divided.experiment, divided.mesh)
    replicated = NamedSharding(divided.mesh, PartitionSpec())
    state.params["table"] = jax.ShapeDtypeStruct((999, 999), jnp.float32, sharding=replicated)
    message = "the parameter table (4.0 MB) is replicated on every device"
    assert message in wastes(divided, state)


# ---------------------------------------------------------------- for machines, for people


KEYS = """
experiment topology chips devices slices mesh fits memory parameters model_flops hardware_flops
seconds mfu hardware_utilisation steps hours chip_hours price cost shapes published notes warnings
remedies basis
"""
SHAPE_KEYS = """
arrays share seconds roofline model_flops hardware_flops moved needed collectives reduction readable
unknown_loops quick
"""


def test_the_keys_for_machines_are_stable(divided):
    report, keys = json.loads(json.dumps(to_json(divided))), KEYS.split()
    assert list(report) == keys and list(report["shapes"][0]) == SHAPE_KEYS.split()
    assert all(key in to_json.__doc__ for key in (*keys, *SHAPE_KEYS.split()))
    assert set(report["memory"]) == {"chip", "needed", "kinds"}
    assert report["chip_hours"] == [8 * hours for hours in report["hours"]]
    assert report["cost"] == [2 * hours for hours in report["chip_hours"]]


def test_loops_of_unknown_length_are_told_in_the_report_and_to_machines(divided):
    assert "unknown trip count" not in text(divided)
    compiled = replace(divided.worst.compiled, unknown_loops=2)
    until = replace(divided, shapes=[replace(divided.worst, compiled=compiled)])
    assert "2 loops of unknown trip count: counted as one iteration" in text(until)
    assert to_json(until)["shapes"][0]["unknown_loops"] == 2


@pytest.mark.parametrize(("price", "cost"), [(0.0, [0.0, 0.0]), (None, None)])
def test_a_price_of_nothing_is_a_cost_and_no_price_is_none(divided, price, cost):
    assert to_json(replace(divided, price=price))["cost"] == cost
    shapes = [replace(shape, roofline=None) for shape in divided.shapes]
    assert to_json(replace(divided, shapes=shapes, price=price))["cost"] is None


def test_the_picture_has_a_bar_for_each_shape_and_a_line_for_the_chip(divided):
    axes = figure(divided).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["batch 16 x 24"]
    assert len(axes.lines) == 1


def test_the_command_prints_a_plan_of_the_devices_here(capfd, tmp_path):
    file = tmp_path / "toy.py"
    file.write_text(
        "from jaxformers.data import BundledPairs, Packing\n"
        "from jaxformers.models import TransformerConfig\n"
        "from jaxformers.tasks import Translation\n"
        "from jaxformers.training import Experiment\n"
        "def experiment():\n"
        "    model = TransformerConfig(\n"
        "        96, width=32, heads=4, feed_forward=64, encoder_layers=1, decoder_layers=1)\n"
        "    return Experiment('toy', Translation(model, BundledPairs()), steps=9)\n"
    )
    picture = tmp_path / "memory.png"
    words = ["--task.batching.rows", "16", "--json", "--picture", str(picture)]
    assert command.main(["plan", str(file), *words]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["fits"] and report["seconds"] is None and picture.stat().st_size > 1000
