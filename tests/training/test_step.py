"""The train step: the same on every mesh, in any number of parts, and by hand."""

from dataclasses import dataclass, fields, replace

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxformers.errors import ConfigError, ShardingError
from jaxformers.sharding import put_batch
from jaxformers.tasks import Translation
from jaxformers.training import Adam
from jaxformers.training.optim.optimizers import decayed
from jaxformers.training.state import abstract_state, make_transformation
from jaxformers.training.step import jit_step, make_step

MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_every_mesh_gives_the_losses_of_one_device(shape):
    # Dropout is on: its draws do not depend on the mesh either.
    single_device = tiny.losses(tiny.EXPERIMENT)
    np.testing.assert_allclose(tiny.losses(tiny.EXPERIMENT, shape), single_device, rtol=1e-5)
    assert len(set(single_device)) == 5


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_parameters_and_optimizer_state_are_divided(shape):
    _, state = tiny.run(tiny.EXPERIMENT, shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.opt_state)):
        shares = [s.data.nbytes for s in leaf.addressable_shards]
        replicated = jax.tree_util.keystr(path).endswith(("['bias']", "['scale']", "count"))
        if replicated or not leaf.shape:
            continue
        fsdp, tensor = shape[1:]
        assert shares == [leaf.nbytes // (fsdp * tensor)] * 8, path
    table = state.params["token_embedding"]["table"]
    assert table.shape == (104, 16)


@pytest.mark.slow
def test_a_vocabulary_that_divides_by_nothing_learns_as_if_unpadded():
    padded = tiny.losses(tiny.EXPERIMENT, steps=3)
    plain = tiny.changed(vocab_multiple=1)
    start = tiny.start(tiny.EXPERIMENT)
    assert start.params["token_embedding"]["table"].shape == (104, 16)

    def cut(x):
        return x[:101] if getattr(x, "shape", ()) == (104, 16) else x

    program, _ = tiny.compiled(plain, (1, 1, 1))
    state, losses = jax.tree.map(cut, start), []
    for step in range(3):
        state, metrics = program(state, put_batch(tiny.batch(step), tiny.mesh_of((1, 1, 1))))
        losses.append(float(metrics["loss"]))
    np.testing.assert_allclose(losses, padded, rtol=1e-5)


@dataclass(frozen=True)
class Contrastive(Translation):
    """A loss that compares the rows of its batch."""

    def loss(self, *args, **kwargs):
        return super().loss(*args, **kwargs).replace(additive=False)


def test_a_loss_whose_parts_do_not_add_up_is_not_accumulated(monkeypatch):
    values = {f.name: getattr(tiny.EXPERIMENT.task, f.name) for f in fields(Translation)}
    experiment = tiny.changed(task=Contrastive(**values))
    mesh = tiny.mesh_of((1, 1, 1))
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *_: pytest.fail("it compiled"))
    with jax.set_mesh(mesh):
        model = experiment.task.module(experiment.execution(mesh))
        state = abstract_state(experiment, model, mesh)
        jit_step(experiment, model, mesh, state)
        with pytest.raises(ConfigError, match=r"of Contrastive .* set --accumulate 1") as error:
            jit_step(replace(experiment, accumulate=2), model, mesh, state)
    assert "\n" not in str(error.value)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("accumulate", [2, 4])
def test_a_batch_in_parts_gives_the_same_update(accumulate):
    unsplit, (metrics, state) = (
        tiny.run(tiny.changed(dropout=0.0), steps=2),
        tiny.run(tiny.changed(dropout=0.0, accumulate=accumulate), steps=2),
    )
    for ours, theirs in zip(metrics, unsplit[0], strict=True):
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5)
        np.testing.assert_allclose(ours["grad_norm"], theirs["grad_norm"], rtol=1e-4)
    for ours, theirs in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(unsplit[1].params), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.slow
def test_a_batch_in_parts_on_a_mesh_gives_the_losses_of_one_device():
    parted = tiny.changed(dropout=0.0, accumulate=2)
    np.testing.assert_allclose(
        tiny.losses(parted, (1, 4, 1), 2), tiny.losses(parted, steps=2), rtol=1e-5
    )


def test_parts_that_do_not_divide_the_batch_are_an_error():
    with pytest.raises(ShardingError, match="rows does not divide into 7 parts"):
        tiny.run(tiny.changed(accumulate=7), steps=1)


def test_the_update_is_the_one_made_by_hand():
    experiment = tiny.changed(dropout=0.0, clip_norm=0.05, ema=0.9)
    metrics, state = tiny.run(experiment, steps=2)
    start, task = tiny.start(experiment), experiment.task
    model = task.module(experiment.execution(tiny.mesh_of((1, 1, 1))))
    tx = make_transformation(experiment)

    @jax.jit
    def by_hand(params, opt_state, ema, batch):
        def mean(params):
            loss = task.loss(model, {"params": params}, batch)
            return loss.total / loss.weight

        value, grads = jax.value_and_grad(mean)(params)
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (
            params,
            opt_state,
            jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, ema, params),
            (value, norm),
        )

    params, opt_state, ema = start.params, start.opt_state, start.params
    for step in range(2):
        params, opt_state, ema, (value, norm) = by_hand(params, opt_state, ema, tiny.batch(step))
        np.testing.assert_allclose(metrics[step]["loss"], value, rtol=1e-5)
        np.testing.assert_allclose(metrics[step]["grad_norm"], norm, rtol=1e-4)
    for ours, theirs in (((state.params), params), (state.ema, ema)):
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)
    assert int(state.step) == 2


def test_clipping_scales_the_gradients_down_to_the_norm():
    grads = {"a": jnp.full((3,), 2.0), "b": jnp.full((4,), -1.0)}  # norm 4

    def updates(clip_norm, grads):
        tx = make_transformation(tiny.changed(clip_norm=clip_norm, optimizer=Adam(eps=1.0)))
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(grads, tx.init(grads), grads)[0]["a"]

    scaled = jax.tree.map(lambda g: g / 8, grads)
    np.testing.assert_allclose(updates(0.5, grads), updates(None, scaled), rtol=1e-6)
    np.testing.assert_allclose(updates(5.0, grads), updates(None, grads), rtol=1e-6)


def test_weight_decay_leaves_biases_and_norms_alone():
    flat = jax.tree_util.tree_leaves_with_path(decayed(tiny.start(tiny.EXPERIMENT).params))
    undecayed = {jax.tree_util.keystr(path[-1:]) for path, decays in flat if not decays}
    assert undecayed == {"['bias']", "['scale']"}
    assert {jax.tree_util.keystr(path[-1:]) for path, d in flat if d} == {"['kernel']", "['table']"}
    params = {"up": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    tx = Adam(weight_decay=0.1).build(lambda count: 0.5)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["up"]["kernel"], -0.05)
    np.testing.assert_allclose(updates["up"]["bias"], 0)


def test_each_gradients_squared_norm_is_told_in_tree_order():
    metrics, state = tiny.run(tiny.EXPERIMENT)
    squares = metrics[0]["squared_norms"]
    assert squares.shape == (len(jax.tree.leaves(state.params)),)
    np.testing.assert_allclose(np.sqrt(squares.sum()), metrics[0]["grad_norm"], rtol=1e-5)


def test_the_learning_rate_is_that_of_the_update():
    metrics, _ = tiny.run(tiny.EXPERIMENT)
    rates = [float(tiny.EXPERIMENT.schedule.rate(n, tiny.EXPERIMENT.steps)) for n in range(5)]
    np.testing.assert_allclose([m["learning_rate"] for m in metrics], rates, rtol=1e-6)


def test_dropout_differs_from_step_to_step_and_comes_again_with_the_seed():
    experiment = tiny.EXPERIMENT
    program, _ = tiny.compiled(experiment, (1, 1, 1))
    batch = put_batch(tiny.batch(), tiny.mesh_of((1, 1, 1)))

    def loss_at(step):
        state = jax.tree.map(jnp.asarray, tiny.start(experiment))
        state.step = jnp.int32(step)
        return float(program(state, batch)[1]["loss"])

    assert loss_at(3) == loss_at(3) != loss_at(4)


def test_no_step_is_compiled_again_in_steady_state():
    mesh, events = tiny.mesh_of((2, 2, 2)), []
    with jax.set_mesh(mesh):
        model = tiny.EXPERIMENT.task.module(tiny.EXPERIMENT.execution(mesh))
        abstract = abstract_state(tiny.EXPERIMENT, model, mesh)
        step = jit_step(tiny.EXPERIMENT, model, mesh, abstract)
        where = jax.tree.map(lambda x: x.sharding, abstract)
        state = jax.device_put(tiny.start(tiny.EXPERIMENT), where)

        def heard(event, *_, **__):
            if event == "/jax/core/compile/backend_compile_duration":
                events.append(event)

        jax.monitoring.register_event_duration_secs_listener(heard)
        try:
            state, _ = step(state, put_batch(tiny.batch(0), mesh))
            assert events  # the listener hears
            events.clear()
            for n in range(1, 4):
                state, metrics = step(state, put_batch(tiny.batch(n), mesh))
            jax.block_until_ready(metrics)
        finally:
            jax.monitoring.unregister_event_duration_listener(heard)
    assert not events


def trace(experiment):
    mesh = tiny.mesh_of((1, 1, 1))
    model = experiment.task.module(experiment.execution(mesh))
    step = make_step(experiment, model)
    return jax.make_jaxpr(step)(tiny.start(experiment), tiny.batch())


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.extend.core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_step_is_traced_under_strict_promotion(precision):
    with jax.numpy_dtype_promotion("strict"):
        closed = trace(tiny.changed(precision=precision, ema=0.9, clip_norm=1.0))
    state = [aval.dtype for aval in closed.out_avals if jnp.issubdtype(aval.dtype, jnp.floating)]
    assert set(state) == {jnp.dtype("float32")}


def test_bfloat16_steps_keep_softmax_norm_logits_loss_and_state_float32():
    closed, dtypes = trace(tiny.changed(precision="bfloat16")), {}
    for eqn in equations(closed.jaxpr):
        kinds = {str(v.aval.dtype) for v in eqn.invars if hasattr(v.aval, "dtype")}
        dtypes.setdefault(eqn.primitive.name, set()).update(kinds)
        if eqn.primitive.name == "dot_general" and eqn.outvars[0].aval.shape[-1] == 104:
            assert eqn.outvars[0].aval.dtype == jnp.float32
    for primitive in ("exp", "log", "rsqrt", "reduce_max", "sqrt"):
        assert dtypes[primitive] <= {"float32"}, primitive
    assert "bfloat16" in dtypes["dot_general"]


def test_no_target_as_wide_as_the_vocabulary_is_made_for_the_forward_pass():
    task = tiny.EXPERIMENT.task
    model = task.module(tiny.EXPERIMENT.execution(tiny.mesh_of((1, 1, 1))))
    variables = {"params": tiny.start(tiny.EXPERIMENT).params}

    def loss(variables):
        return task.loss(model, variables, tiny.batch(), train=False).total

    closed, shapes = jax.make_jaxpr(loss)(variables), [(8, 9, 104), (72, 104)]
    primitives = {
        eqn.primitive.name
        for eqn in equations(closed.jaxpr)
        if eqn.outvars and eqn.outvars[0].aval.shape in shapes
    }
    assert "dot_general" in primitives and not {"one_hot", "scatter", "eq"} & primitives
