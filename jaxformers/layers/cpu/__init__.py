"""CPU forms: the same computations, written so that XLA for CPU trains faster; used nowhere else.

General layers ask for one in one line. This room imports nothing of the other layers.
"""

from jaxformers.layers.cpu.convolution import LEAST_CHANNELS, convolve
from jaxformers.layers.cpu.materialize import computed_once
from jaxformers.layers.cpu.matmul import matmul
from jaxformers.layers.cpu.switch import cpu_forms, uses_cpu_forms

__all__ = [
    "LEAST_CHANNELS",
    "computed_once",
    "convolve",
    "cpu_forms",
    "matmul",
    "uses_cpu_forms",
]
