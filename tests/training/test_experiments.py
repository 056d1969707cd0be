"""Every file in `experiments/` builds, and its full-size state lies on meshes, without memory."""

import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from jaxformers.runs import golden
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.training import Experiment
from jaxformers.training.config.experiment_files import from_json, load_experiment, to_json
from jaxformers.training.run_directory import changed_fields
from jaxformers.training.state import abstract_state

ROOT = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(ROOT.glob("*/*.py"))
LARGE = 2**18  # numbers of a leaf that has to be divided
# Choices of a model that are no sizes, as far as it has them.
CHOICES = (
    "activation",
    "attention_bias",
    "attention_dropout",
    "class_token",
    "dropout",
    "head_batch_norm",
    "head_norm",
    "mask_ratio",
    "norm_momentum",
    "norm_pix_loss",
    "norm_epsilon",
    "norm_position",
    "pooler",
    "pooling",
    "positions",
    "standardisation_epsilon",
    "zero_init",
)


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def file(request):
    return request.param


def test_it_builds_by_its_files_name_and_says_what_it_is(file):
    experiment = load_experiment(file)
    assert isinstance(experiment, Experiment)
    # Every family has a demo, and all runs lie in one folder.
    assert experiment.name in (file.stem, f"{file.parent.name}_{file.stem}")
    spec = importlib.util.spec_from_file_location("read", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = f"experiments/{file.parent.name}/{file.name}"
    # GLUE's tasks are a grid of runs, which `tune` makes.
    assert re.search(rf"jaxformers (train|tune) {re.escape(path)}", module.__doc__)


def test_no_two_have_the_same_name():
    names = [load_experiment(file).name for file in FILES]
    assert len(set(names)) == len(names)


def test_it_is_kept_and_read_back_as_it_was(file):
    experiment = load_experiment(file)
    assert from_json(to_json(experiment)) == experiment


@pytest.mark.default_cases(8)
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)], ids=str)
def test_its_full_size_state_is_divided(file, shape):
    if file.stem == "own_folder" and shape[2] > 1:
        pytest.skip("a small model of three heads, which no tensor axis divides")
    experiment = load_experiment(file)
    mesh = make_mesh(MeshConfig(*shape))
    model = experiment.task.module(experiment.execution(mesh))
    state = abstract_state(experiment, model, mesh)
    expected = share = 0
    _, fsdp, tensor = shape
    state_trees = (state.params, state.opt_state, state.ema)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state_trees):
        # Convolutions, heads of images and projections are divided over fsdp alone.
        name = jax.tree_util.keystr(path)
        alone = re.search("conv|head|pre_logits|patch_embedding|projection", name)
        expected += leaf.size / (fsdp if alone else fsdp * tensor)
        mine = math.prod(leaf.sharding.shard_shape(leaf.shape))
        share += mine
        assert fsdp == 1 or mine < leaf.size or leaf.size < LARGE
    # Tables of positions and dense layers of heads are divided over one axis alone.
    assert expected <= share <= 1.06 * expected + LARGE


def test_it_has_a_golden_file_of_the_same_model(file):
    experiment = load_experiment(file)
    path = golden.find(experiment, file)
    if file.stem == "own_folder":  # the model depends on the user's images
        assert path is None
        return
    assert path == file.parent / "golden" / f"{experiment.name}.json"
    recorded = golden.read(path)
    assert not golden.changes(recorded["model"], golden.model_fields(experiment))


def test_its_rehearsal_is_small_and_the_same_kind_of_run(file):
    experiment = load_experiment(file)
    small = experiment.rehearse()
    changed = (small.optimizer, small.schedule, small.accumulate, small.clip_norm, small.ema)
    fields = ("optimizer", "schedule", "accumulate", "clip_norm", "ema")
    assert changed == tuple(getattr(experiment, name) for name in fields)
    assert small.steps <= 10 and small.mesh.shape(8) == (2, 2, 2)
    expected = choices(experiment.task.model)
    assert expected and choices(small.task.model) == expected


def test_the_number_of_workers_makes_no_other_run():
    experiment = load_experiment(ROOT / "vit" / "demo.py")
    for field, changed in (("workers", []), ("rows", ["task"])):
        task = replace(experiment.task, **{field: 3})
        assert changed_fields(experiment, replace(experiment, task=task)) == changed


def choices(model):
    """The fields of `CHOICES`, those of an encoder or of towers within included."""
    if hasattr(model, "text"):
        towers = {"image": choices(model.image), "text": choices(model.text)}
        return {
            f"{n}.{name}": value for n, tower in towers.items() for name, value in tower.items()
        }
    encoder = getattr(model, "encoder", None)
    fields = {name: getattr(model, name) for name in CHOICES if hasattr(model, name)}
    return fields if encoder is None else choices(encoder) | fields


def test_parameter_counts_of_the_paper_runs():
    counts = {
        "translation/wmt14_en_de_base": 63_045_632,
        "translation/wmt14_en_de_big": 214_171_648,
        "translation/wmt14_en_fr_base": 63_045_632 - 5000 * 512,
        "translation/wmt14_en_fr_big": 214_171_648 - 5000 * 1024,
        "bert/pretrain_base": 110_106_428,
        "bert/pretrain_large": 336_226_108,
        "bert/pretrain_large_lamb": 336_226_108,
    }
    for name, count in counts.items():
        experiment = replace(load_experiment(ROOT / f"{name}.py"), vocab_multiple=1)
        mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
        model = experiment.task.module(experiment.execution(mesh))
        shapes = jax.eval_shape(lambda e=experiment, m=model: e.task.init(m, jax.random.key(0)))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
