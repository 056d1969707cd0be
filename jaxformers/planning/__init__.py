"""Plans: what an experiment needs on a pod, in memory, time and money, before it is rented."""

from jaxformers.planning.machine import to_json
from jaxformers.planning.planner import Plan, plan
from jaxformers.planning.report import figure, text
from jaxformers.planning.topologies import GENERATIONS, Pod, local_pod, tpu_pod
from jaxformers.planning.trials import search

__all__ = [
    "GENERATIONS",
    "Plan",
    "Pod",
    "figure",
    "local_pod",
    "plan",
    "search",
    "text",
    "to_json",
    "tpu_pod",
]
