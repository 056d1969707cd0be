"""The array type of public signatures: JAX's, or NumPy's as it comes from a notebook.

Shapes stand beside it in jaxtyping's notation, `Float[Array, "B L D"]`. Axis letters: B batch,
L length (T target, S source), D model width, H heads, K width of a head, F feed-forward width,
V vocabulary, P patches, C channels, N classes.
"""

import jax
import numpy as np

Array = jax.Array | np.ndarray
