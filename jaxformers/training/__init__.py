"""Experiments: what they are, how they train, what they leave behind."""

from jaxformers.training.checkpoints import Checkpointing
from jaxformers.training.experiment import Experiment
from jaxformers.training.metrics_log import Logging
from jaxformers.training.optimizers import Adam, BertAdam, Lamb, Optimizer
from jaxformers.training.own_model import sharded_update
from jaxformers.training.schedules import (
    BertLinear,
    Cosine,
    InverseSquareRoot,
    Linear,
    RootDecay,
    Schedule,
    TwoPhases,
)

__all__ = [
    "Adam",
    "BertAdam",
    "BertLinear",
    "Checkpointing",
    "Cosine",
    "Experiment",
    "InverseSquareRoot",
    "Lamb",
    "Linear",
    "Logging",
    "Optimizer",
    "RootDecay",
    "Schedule",
    "TwoPhases",
    "sharded_update",
]
