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
    made = plan(experiment(), "v5e:2x4", mesh=MeshConfig(2, 2, 2))
    compiled = made.worst.compiled
    assert made.fits and compiled.readable
    assert sum(made.kinds(made.worst).values()) == compiled.needed
    axes = {each.axes for each in compiled.collectives}
    assert ("?",) not in axes and {("tensor",), ("fsdp",)} <= axes
    assert "gradients are reduced in bf16" in text(made)
    low, high = made.seconds
    assert low < high <= 3 * low


def test_of_two_phases_the_one_that_needs_more_is_compiled_as_train_would():
    phases = (Phase(length=64, rows=64, steps=90), Phase(length=256, rows=64))
    task = MaskedLanguage(BertConfig.tiny(), BundledDocuments(), pretraining=Pretraining(phases))
    made = plan(
        Experiment("toy", task, steps=100), "v5e:2x2", mesh=MeshConfig(2, 2, 1), effort="mixed"
    )
    short, long = made.shapes
    assert short.compiled.quick and not long.compiled.quick and long is made.worst
    assert short.compiled.readable and long.compiled.readable
    assert [e.bytes for e in short.compiled.collectives if e.kind == "all-reduce"]
    assert "batch 64 x 64: compiled at the least effort" in text(made)


def test_loops_of_layers_count_as_often_as_they_run():
    def sent(layers: int) -> int:
        made = plan(experiment(encoder_layers=layers), "v3:2x2", mesh=MeshConfig(8, 1, 1))
        return sum(each.bytes * each.times for each in made.worst.compiled.collectives)

    layer = 4 * 256 * 256 + 2 * 256 * 1024 + 1024 + 9 * 256
    assert sent(8) - sent(4) == pytest.approx(4 * layer * 2, rel=0.02)  # in bfloat16


def test_slices_are_joined_over_data_alone():
    made = plan(experiment(), "2xv5e:2x4", mesh=MeshConfig(8, 2, 1))
    across = [each for each in made.worst.compiled.collectives if each.slices > 1]
    assert across and {each.axes for each in across} == {("data",)}
    sent = sum(each.bytes * each.times for each in across)
    # Each chip of a slice hands on its share of all gradients, in bfloat16 for the most part.
    share = 2 * made.parameters / 8
    assert share <= sent <= 2.5 * share
    assert made.shapes[0].roofline.between > 0


def test_what_is_too_large_is_refused_and_the_search_finds_what_fits(monkeypatch):
    large, mesh = experiment(rows=32768, length=512, width=512), MeshConfig(8, 1, 1)
    made = plan(large, "v3:2x2", mesh=mesh)
    assert not made.fits and "does not fit: " in text(made) and " of 34.4 GB; try " in text(made)
    monkeypatch.setattr(mesh_search, "meshes", lambda experiment, pod: iter((mesh,)))
    found = search(large, "v3:2x2")
    assert found.best is not None and found.best.worst.compiled.compiles
    assert found.best.worst.compiled.needed <= found.best.memory
    assert found.best.experiment.task == large.task


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
