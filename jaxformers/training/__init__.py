"""Experiments: what they are, how they train, what they leave behind."""

from jaxformers.training.checkpoints import Checkpointing
from jaxformers.training.experiment import Experiment
from jaxformers.training.hyperrule import HyperRule, hyperrule
from jaxformers.training.metrics_log import Logging
from jaxformers.training.optimizers import Adam, BertAdam, Lamb, Lars, Optimizer, Sgd
from jaxformers.training.own_model import sharded_update
from jaxformers.training.schedules import (
    BertLinear,
    Cosine,
    InverseSquareRoot,
    Linear,
    RootDecay,
    Schedule,
    Steps,
    TwoPhases,
)

__all__ = [
    "Adam",
    "BertAdam",
    "BertLinear",
    "Checkpointing",
    "Cosine",
    "Experiment",
    "HyperRule",
    "InverseSquareRoot",
    "Lamb",
    "Lars",
    "Linear",
    "Logging",
    "Optimizer",
    "RootDecay",
    "Schedule",
    "Sgd",
    "Steps",
    "TwoPhases",
    "hyperrule",
    "sharded_update",
]
