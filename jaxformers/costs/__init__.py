"""Costs of a program (FLOPs, memory traffic, collectives) and data sheets of chips.

Imports nothing else of the library.
"""

from jaxformers.costs.chips import CHIPS, Chip, chip_for, chips_in, peak_flops
from jaxformers.costs.flops import FlopCount, count_flops, flops_of, measure_flops, model_flops

__all__ = [
    "CHIPS",
    "Chip",
    "FlopCount",
    "chip_for",
    "chips_in",
    "count_flops",
    "flops_of",
    "measure_flops",
    "model_flops",
    "peak_flops",
]
