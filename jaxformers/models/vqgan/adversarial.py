"""VQGAN as it is trained: beside a discriminator, and with a count of the training steps."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.models.vqgan.discriminator import PatchDiscriminator, PatchDiscriminatorConfig
from jaxformers.models.vqgan.vqgan import VQGAN

DISCRIMINATOR = "discriminator"


class AdversarialVQGAN(VQGAN):
    """A `VQGAN` whose variables also hold those of a discriminator.

    `params/discriminator` and `batch_stats/discriminator` are the discriminator's, `progress/steps`
    counts the steps, by which the discriminator's start is known. All other variables are VQGAN's
    own.
    """

    discriminator_config: PatchDiscriminatorConfig | None = None
    """None: no discriminator."""

    def setup(self):
        super().setup()
        self.steps = self.variable("progress", "steps", jnp.zeros, (), jnp.int32)
        if self.discriminator_config is not None:
            self.discriminator = PatchDiscriminator(self.discriminator_config, self.execution)

    def discriminate(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B h w 1"]:
        """The discriminator's logits, high for patches that it takes for real ones."""
        return self.discriminator(images, train=train)

    def initialise(self, images: Float[Array, "B H W C"]) -> None:
        """Touches every parameter: what `init` calls."""
        reconstructed = self(images)
        if self.discriminator_config is not None:
            self.discriminate(reconstructed)
