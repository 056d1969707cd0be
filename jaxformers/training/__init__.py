"""Experiments: what they are, how they train, what they leave behind."""

from jaxformers.training.checkpoints.checkpoint_manager import Checkpointing
from jaxformers.training.custom_model import sharded_update
from jaxformers.training.experiment import Experiment
from jaxformers.training.label_curve import LabelCurve
from jaxformers.training.optim.adafactor import Adafactor
from jaxformers.training.optim.hyperrule import HyperRule, hyperrule
from jaxformers.training.optim.optimizers import Adam, BertAdam, Lamb, Lars, Optimizer, Sgd
from jaxformers.training.optim.schedules import (
    BertLinear,
    Cosine,
    InverseSquareRoot,
    Linear,
    RootDecay,
    Schedule,
    Steps,
    T5Schedule,
    TwoPhases,
)
from jaxformers.training.reports.training_log import Logging

__all__ = [
    "Adafactor",
    "Adam",
    "BertAdam",
    "BertLinear",
    "Checkpointing",
    "Cosine",
    "Experiment",
    "HyperRule",
    "InverseSquareRoot",
    "LabelCurve",
    "Lamb",
    "Lars",
    "Linear",
    "Logging",
    "Optimizer",
    "RootDecay",
    "Schedule",
    "Sgd",
    "Steps",
    "T5Schedule",
    "TwoPhases",
    "hyperrule",
    "sharded_update",
]
