"""Vector quantisation (van den Oord et al. 2017): the nearest vector of a codebook.

Axis letters: B batch, h and w codes along height and width, E width of a code's vector, V codes.
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.models.vqgan.config import VQGANConfig
from jaxformers.sharding import constrain


@flax.struct.dataclass
class Quantized:
    """Latents replaced by the nearest vectors of the codebook.

    Attributes:
        vectors: `[B, h, w, E]`, whose gradient passes to the latents as if they were not replaced.
        codes: `[B, h, w]`, int32.
        loss: the quantisation loss of each image, `[B]`.
        distances: squared distance of each latent to each code's vector, `[B, h, w, V]`.
    """

    vectors: Array
    codes: Array
    loss: Array
    distances: Array


class Quantizer(nn.Module):
    """A codebook `[V, E]` and the search in it, both in float32."""

    config: VQGANConfig

    def setup(self):
        c = self.config
        init = nn.initializers.normal(c.embed_dim**-0.5)
        if c.codebook_init == "uniform":
            init = _uniform_within(1 / c.n_embed)
        codebook = self.param("codebook", init, (c.n_embed, c.embed_dim))
        # Gathered once: the search and the look-up would each move it, or the latents, otherwise.
        self.table = constrain(codebook, None, None)

    def __call__(self, z: Float[Array, "B h w E"]) -> Quantized:
        """The nearest vector of each latent; the first of equally near ones."""
        z = constrain(z.astype(jnp.float32), "batch", None, None, None)
        # |z - e|^2 = |z|^2 + |e|^2 - 2 z e, summed in the published order: the codes are equal.
        squares = jnp.square(self.table).sum(1).reshape(1, 1, 1, -1)
        products = jnp.einsum("BhwE,VE->BhwV", z, self.table, precision="highest")
        # [B, h, w, V]
        distances: Array = jnp.square(z).sum(-1, keepdims=True) + squares - 2.0 * products
        distances = constrain(distances, "batch", None, None, None)
        codes = distances.argmin(-1).astype(jnp.int32)
        vectors = self.vectors(codes)
        # The published loss (`legacy`): beta weighs the codes' term, not the encoder's.
        stop = jax.lax.stop_gradient
        loss = jnp.square(stop(vectors) - z) + self.config.beta * jnp.square(vectors - stop(z))
        # Forward the codes' vectors; backward the identity, since argmin has no gradient.
        straight_through = z + stop(vectors - z)
        return Quantized(straight_through, codes, loss.mean((1, 2, 3)), distances)

    def vectors(self, codes: Int[Array, "B h w"]) -> Float[Array, "B h w E"]:
        """The codes' vectors."""
        return constrain(jnp.take(self.table, codes, axis=0), "batch", None, None, None)


def _uniform_within(limit: float):
    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
