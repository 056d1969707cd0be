"""The TPU compiler's own word, on machines that have libtpu."""

import importlib.util
import subprocess
import sys

import pytest

from jaxformers.data import BundledDocuments, BundledPairs, Packing, Phase, Pretraining
from jaxformers.models import BertConfig, TransformerConfig
from jaxformers.planning import mesh_search, plan, search, text, topologies
from jaxformers.sharding import MeshConfig
from jaxformers.tasks import MaskedLanguage, Translation
from jaxformers.training.experiment import Experiment

LIBTPU = importlib.util.find_spec("libtpu") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBTPU, reason=f"no libtpu: {topologies.INSTALL}"),
]


def experiment(
    rows: int = 32, length: int = 128, width: int = 256, encoder_layers: int = 1
) -> Experiment:
    sizes = dict(width=width, heads=4, feed_forward=4 * width, decoder_layers=1)
    model = TransformerConfig(1000, encoder_layers=encoder_layers, **sizes)
    task = Translation(model, BundledPairs(), batching=Packing(length, length, rows))
    return Experiment("toy", task, steps=100)


def test_a_plan_for_a_pod_adds_up_and_names_what_chips_send():
    planned = plan(experiment(), "v5e:2x4", mesh=MeshConfig(2, 2, 2))
    compiled = planned.worst.compiled
    assert planned.fits and compiled.readable
    assert sum(planned.kinds(planned.worst).values()) == compiled.needed
    axes = {collective.axes for collective in compiled.collectives}
    assert ("?",) not in axes and {("tensor",), ("fsdp",)} <= axes
    assert "gradients are reduced in bf16" in text(planned)
    low, high = planned.seconds
    assert low < high <= 3 * low


def test_of_two_phases_the_one_that_needs_more_is_compiled_as_train_would():
    phases = (Phase(length=64, rows=64, steps=90), Phase(length=256, rows=64))
    task = MaskedLanguage(BertConfig.tiny(), BundledDocuments(), pretraining=Pretraining(phases))
    planned = plan(
        Experiment("toy", task, steps=100), "v5e:2x2", mesh=MeshConfig(2, 2, 1), effort="mixed"
    )
    short, long = planned.shapes
    assert short.compiled.quick and not long.compiled.quick and long is planned.worst
    assert short.compiled.readable and long.compiled.readable
    assert [e.bytes for e in short.compiled.collectives if e.kind == "all-reduce"]
    assert "batch 64 x 64: compiled at the least effort" in text(planned)


def test_loops_of_layers_count_as_often_as_they_run():
    def sent(layers: int) -> int:
        planned = plan(experiment(encoder_layers=layers), "v3:2x2", mesh=MeshConfig(8, 1, 1))
        return sum(
            collective.bytes * collective.times for collective in planned.worst.compiled.collectives
        )

    layer = 4 * 256 * 256 + 2 * 256 * 1024 + 1024 + 9 * 256
    assert sent(8) - sent(4) == pytest.approx(4 * layer * 2, rel=0.02)  # in bfloat16


def test_slices_are_joined_over_data_alone():
    planned = plan(experiment(), "2xv5e:2x4", mesh=MeshConfig(8, 2, 1))
    across = [
        collective for collective in planned.worst.compiled.collectives if collective.slices > 1
    ]
    assert across and {collective.axes for collective in across} == {("data",)}
    sent = sum(collective.bytes * collective.times for collective in across)
    # Each chip of a slice hands on its share of all gradients, in bfloat16 for the most part.
    share = 2 * planned.parameters / 8
    assert share <= sent <= 2.5 * share
    assert planned.shapes[0].roofline.between > 0


def test_what_is_too_large_is_refused_and_the_search_finds_what_fits(monkeypatch):
    large, mesh = experiment(rows=32768, length=512, width=512), MeshConfig(8, 1, 1)
    planned = plan(large, "v3:2x2", mesh=mesh)
    assert (
        not planned.fits
        and "does not fit: " in text(planned)
        and " of 34.4 GB; try " in text(planned)
    )
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((mesh,)))
    result = search(large, "v3:2x2")
    assert result.best is not None and result.best.worst.compiled.compiles
    assert result.best.worst.compiled.needed <= result.best.memory
    assert result.best.experiment.task == large.task


REMATERIALISED = """
import jax
jax.config.update("jax_platforms", "cpu")
from jaxformers.data import BundledDocuments, Phase, Pretraining
from jaxformers.models import BertConfig
from jaxformers.planning import plan
from jaxformers.tasks import MaskedLanguage
from jaxformers.training import Experiment, Lamb
model = BertConfig.large(layers=2)
rows = Pretraining((Phase(length=512, rows=512),))
task = MaskedLanguage(model, BundledDocuments(), pretraining=rows)
toy = Experiment("toy", task, steps=100, optimizer=Lamb(), remat="full", accumulate=4, clip_norm=1)
assert plan(toy, "v6e:2x2", effort="least").fits
"""


def test_attention_dropout_that_is_computed_again_does_not_crash_the_compiler():
    subprocess.run([sys.executable, "-c", REMATERIALISED], check=True)
