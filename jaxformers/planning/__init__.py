"""Plans: what an experiment needs on a pod, in memory, time and money, before it is rented."""

from jaxformers.planning.mesh_search import search
from jaxformers.planning.plan_json import to_json
from jaxformers.planning.plan_result import Plan
from jaxformers.planning.planner import plan
from jaxformers.planning.report import figure, text
from jaxformers.planning.topologies import GENERATIONS, Pod, local_pod, tpu_pod

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
