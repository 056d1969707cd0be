"""A search finds what fits, keeps the global batch, and says how to run it."""

import shlex
from dataclasses import replace

import jax
import pytest

from jaxformers.data import BundledPairs, Packing
from jaxformers.models import TransformerConfig
from jaxformers.planning import local_pod, mesh_search, plan, search
from jaxformers.sharding import MeshConfig
from jaxformers.tasks import Translation
from jaxformers.training.config.overrides import override
from jaxformers.training.experiment import Experiment

MODEL = TransformerConfig(
    96, width=64, heads=4, feed_forward=256, encoder_layers=1, decoder_layers=1
)
TOO_LARGE = Experiment(
    "toy", Translation(MODEL, BundledPairs(), batching=Packing(8, 8, 16)), 9, vocab_multiple=8
)
DATA, FSDP = MeshConfig(8, 1, 1), MeshConfig(1, 8, 1)


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    """A pod whose chips have room for the step when it is divided, and not when it is whole."""
    local = local_pod(jax.devices()[:8], "v5e")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXFORMERS_CACHE", str(tmp_path_factory.mktemp("cache")))
        needed = plan(TOO_LARGE, local, mesh=FSDP).worst.compiled.needed
        yield replace(local, chip=replace(local.chip, memory=1.02 * needed))


@pytest.mark.slow
def test_a_search_finds_a_mesh_that_fits_and_the_command_that_runs_it(pod, monkeypatch):
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((DATA, FSDP)))
    result = search(TOO_LARGE, pod, workers=2)
    assert not all(plan.fits for plan in result.plans) and result.plans[0] is result.best
    best = result.best.experiment
    assert result.best.worst.compiled.needed <= pod.chip.memory
    assert best.task == TOO_LARGE.task and best.mesh.fsdp == 8
    page = result.text(["jaxformers", "train", "toy.py"])
    assert "does not fit" in page and page.endswith("--mesh.data 1 --mesh.fsdp 8")
    options = shlex.split(page.splitlines()[-1])[3:]
    assert override(TOO_LARGE, options, "train") == best


@pytest.mark.slow
def test_what_a_quick_compile_leaves_open_is_decided_by_the_real_one(pod, monkeypatch):
    """The chips have 2 % to spare for the quick plan, and too little for the real one."""
    efforts = []

    def plan_on(pod, experiment, mesh, report=None, effort="full"):
        efforts.append(effort)
        quick = effort == "least"
        planned = real_plan_on(pod, experiment, mesh)
        for shape in planned.shapes:
            more = 0 if quick else pod.chip.memory // 20
            temporaries = shape.compiled.temporaries + int(more)
            shape.compiled = replace(shape.compiled, temporaries=temporaries, quick=quick)
        return planned

    real_plan_on = mesh_search.plan_on
    monkeypatch.setattr(mesh_search, "plan_on", plan_on)
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((FSDP,)))
    monkeypatch.setattr(mesh_search, "SAVINGS", mesh_search.SAVINGS[:1])
    assert search(TOO_LARGE, pod, effort="least").best is None and efforts == ["least", "mixed"]
    # With half to spare the quick plan is enough to go on, and the best is compiled again.
    efforts.clear()
    roomy = replace(pod, chip=replace(pod.chip, memory=2 * pod.chip.memory))
    best = search(TOO_LARGE, roomy, effort="least").best
    assert efforts == ["least", "mixed"] and not best.worst.compiled.quick


@pytest.mark.slow
def test_when_nothing_fits_that_is_said(pod, monkeypatch):
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((DATA,)))
    monkeypatch.setattr(mesh_search, "SAVINGS", mesh_search.SAVINGS[:1])
    result = search(TOO_LARGE, pod)
    assert result.best is None and "none fits" in result.text([])


@pytest.mark.slow
def test_a_batch_that_is_normalised_together_is_not_taken_in_parts(pod, monkeypatch):
    tried = []

    def too_large(pod, experiment, mesh, effort):
        tried.append(experiment.accumulate)
        planned = plan_of(TOO_LARGE, pod, mesh=mesh)
        return replace(planned, batch_norm=True, pod=replace(pod, chip=replace(pod.chip, memory=1)))

    plan_of, small = plan, replace(pod, chip=replace(pod.chip, memory=1e9))
    monkeypatch.setattr(mesh_search, "plan_on", too_large)
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((DATA,)))
    search(TOO_LARGE, small)
    assert set(tried) == {1}


def test_meshes_divide_the_pod_and_its_slices():
    for slices in (1, 2):
        pod = replace(local_pod(jax.devices()[:8]), slices=slices)
        shapes = [mesh.shape(8) for mesh in mesh_search.meshes(TOO_LARGE, pod)]
        assert (8, 1, 1) in shapes and (slices, 8 // slices, 1) in shapes
        assert all(data % slices == 0 for data, _, _ in shapes)
        assert len(set(shapes)) == len(shapes)
