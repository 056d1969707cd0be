"""Mixtures of tasks: rates, draws by index arithmetic, batches, and the paper's data sets.

Imports `data.pipeline`, `fields` and `errors`.
"""

from jaxformers.data.mixture.batch_draws import BatchDraws
from jaxformers.data.mixture.draws import MixtureDraws, TaskDraw
from jaxformers.data.mixture.mixture import (
    Group,
    Mixture,
    MixtureEntry,
    MixtureTask,
    RateChange,
    TaskExamples,
)
from jaxformers.data.mixture.paper_datasets import PAPER_DATASETS, PaperDataset, missing_datasets
from jaxformers.data.mixture.plan import MixturePlan, OpenMixture, open_mixture
from jaxformers.data.mixture.rates import Rates, task_shares

__all__ = [
    "PAPER_DATASETS",
    "BatchDraws",
    "Group",
    "Mixture",
    "MixtureDraws",
    "MixtureEntry",
    "MixturePlan",
    "MixtureTask",
    "OpenMixture",
    "PaperDataset",
    "RateChange",
    "Rates",
    "TaskDraw",
    "TaskExamples",
    "missing_datasets",
    "open_mixture",
    "task_shares",
]
