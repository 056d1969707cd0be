"""Experiments: what they are, how they train, what they leave behind."""

from jaxformers.training.checkpoints import Checkpointing
from jaxformers.training.experiment import Experiment
from jaxformers.training.metrics_log import Logging
from jaxformers.training.optimizers import Adam, Optimizer
from jaxformers.training.own_model import sharded_update
from jaxformers.training.schedules import Cosine, InverseSquareRoot, Linear, Schedule

__all__ = [
    "Adam",
    "Checkpointing",
    "Cosine",
    "Experiment",
    "InverseSquareRoot",
    "Linear",
    "Logging",
    "Optimizer",
    "Schedule",
    "sharded_update",
]
