"""What a program costs (FLOPs) and what chips can do (peak, memory, bandwidth, links)."""

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
