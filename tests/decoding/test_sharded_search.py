"""Decoding lies on the mesh as the model does, and finds the same."""

import jax
import numpy as np
import pytest
from test_search import sources, tiny

from jaxformers.decoding import beam_search
from jaxformers.layers import Execution
from jaxformers.sharding import MeshConfig, make_mesh, shardings


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2)])
def test_a_sharded_model_decodes_what_one_device_does(shape, capfd):
    model, variables = tiny(23, scale=1.5, execution=Execution(vocab_multiple=8))
    ids, mask = sources(23, rows=5)  # rows that the mesh does not divide
    alone = beam_search(model, variables, ids, mask, 12)
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        sharded = {
            "params": jax.device_put(variables["params"], shardings(variables["params"], mesh))
        }
        result = beam_search(model, sharded, ids, mask, 12)
    np.testing.assert_array_equal(result.ids, alone.ids)
    np.testing.assert_allclose(result.scores, alone.scores, rtol=1e-5)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err
