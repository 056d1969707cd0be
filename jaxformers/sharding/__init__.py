"""Device mesh, the table of parameter sharding rules, and `constrain` for activations.

Imports only `errors` and `arrays`; layers, models and training import from here.
"""

from jaxformers.sharding.activations import activation_spec, batch_multiple, constrain
from jaxformers.sharding.mesh import AXES, MeshConfig, make_mesh, platform_of
from jaxformers.sharding.state import batch_sharding, batch_shards, like_parameters, put_batch
from jaxformers.sharding.table import (
    TABLE,
    Row,
    axes_of,
    describe_parameters,
    parameter_spec,
    path_text,
    row_for,
    shardings,
)

__all__ = [
    "AXES",
    "TABLE",
    "MeshConfig",
    "Row",
    "activation_spec",
    "axes_of",
    "batch_multiple",
    "batch_sharding",
    "batch_shards",
    "constrain",
    "describe_parameters",
    "like_parameters",
    "make_mesh",
    "parameter_spec",
    "path_text",
    "platform_of",
    "put_batch",
    "row_for",
    "shardings",
]
