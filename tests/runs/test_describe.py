"""`describe` states the memory of the optimizer that the experiment has, sharded as it will be."""

from dataclasses import replace
from pathlib import Path

import pytest

from jaxformers.planning.planner import state_bytes
from jaxformers.runs.describe import describe
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.training import Adafactor, Adam, BertAdam, Lamb, Lars, Sgd
from jaxformers.training.config.experiment_files import load_experiment
from jaxformers.training.state import abstract_state

DEMO = Path(__file__).resolve().parents[2] / "experiments" / "translation" / "demo.py"


@pytest.mark.default_cases(2)
@pytest.mark.parametrize(
    ("optimizer", "memory"),
    [
        (Adafactor(), "the factored second moments and the momentum of Adafactor"),
        (Adafactor(b1=0.0), "the factored second moments of Adafactor"),
        (Adam(), "the two moments of Adam"),
        (BertAdam(), "the two moments of BERT's Adam"),
        (Lamb(), "the two moments of LAMB"),
        (Lars(), "the momentum of LARS"),
        (Sgd(), "the momentum of SGD"),
    ],
)
def test_the_last_line_states_the_optimizers_memory(optimizer, memory):
    mesh_config = MeshConfig(data=2, fsdp=2, tensor=2)
    experiment = replace(load_experiment(DEMO), optimizer=optimizer, mesh=mesh_config)
    mesh = make_mesh(mesh_config)
    model = experiment.task.module(experiment.execution(mesh))
    of_kind = state_bytes(abstract_state(experiment, model, mesh))
    megabytes = (of_kind["parameters"] + of_kind["optimizer"]) / 1e6
    last = describe(experiment, devices=8).splitlines()[-1]
    assert last.startswith("On 8 devices (data 2 x fsdp 2 x tensor 2): ")
    assert last.endswith(f" {megabytes:.3g} MB with {memory}.")
