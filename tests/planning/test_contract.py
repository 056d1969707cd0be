"""Every experiment's step holds the collectives that its mesh explains, and no others."""

from pathlib import Path

import pytest

from jaxformers.evaluation.published.costs import COSTS
from jaxformers.runs.check_steps import explained_collectives
from jaxformers.runs.check_subject import Subject
from jaxformers.tasks import Contrastive
from jaxformers.training.config.experiment_files import load_experiment

ROOT = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(ROOT.glob("*/*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_pure_data_parallelism_sums_gradients_and_other_meshes_gather_parameters(file):
    subject = Subject(load_experiment(file), {}, update=True)
    explanation = explained_collectives(subject)
    data = explanation.split(";")[0]
    assert data.startswith("(8, 1, 1)") and "all-reduce over data" in data
    # Images that are mixed with others of the batch move between its shards, and so do the
    # embeddings that a contrastive loss compares.
    task = subject.full.task
    exchanges = getattr(task, "mixup", 0) or isinstance(task, Contrastive)
    assert exchanges or data.count(" over ") == 1


def test_published_costs_are_those_of_experiments_that_there_are():
    assert COSTS.keys() <= {load_experiment(file).name for file in FILES}
