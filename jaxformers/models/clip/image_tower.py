"""CLIP's ViT (section 2.4), which has a norm before its blocks, and SigLIP's.

Axis letters: B batch, H and W height and width, C channels, P patches, L tokens, D model width,
E embedding.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import (
    EncoderStack,
    Execution,
    Linear,
    Norm,
    PositionEmbedding,
)
from jaxformers.layers.pooling import AttentionPooling
from jaxformers.models.clip.config import CLIPImageConfig
from jaxformers.models.clip.outputs import CLIPImageOutput, check_images
from jaxformers.models.patches import PatchEmbedding, prepend_tokens
from jaxformers.sharding import constrain


class CLIPImageTower(nn.Module):
    """The ViT of CLIP or SigLIP: `model.apply(variables, images).image_embeds`."""

    config: CLIPImageConfig
    execution: Execution = Execution()

    def setup(self):
        c, std = self.config, self.config.width**-0.5
        openai = c.init == "openai"
        self.patch_embedding = PatchEmbedding(
            c.patch_size,
            c.channels,
            c.width,
            "fan_in_uniform" if openai else "lecun",
            use_bias=c.patch_bias,
            execution=self.execution,
        )
        if c.class_token:
            self.class_token = self.param("class_token", nn.initializers.normal(std), (c.width,))
        self.position_embedding = PositionEmbedding(c.tokens, c.width, std)
        if c.pre_norm:
            self.pre_norm = Norm("layer", c.norm_epsilon)
        # The final norm is applied to all tokens; OpenAI's code normalises the class token alone,
        # which gives the same embedding.
        self.encoder = EncoderStack(c.block, c.layers, True, self.execution)
        if c.pooling == "attention":
            self.attention_pool = AttentionPooling(c.block, self.execution)
        if c.projection:
            init = std if openai else "xavier"
            self.projection = Linear((c.width,), (c.projection,), False, init, gathered=True)

    def __call__(self, images: Float[Array, "B H W C"], *, train: bool = False) -> CLIPImageOutput:
        """Embeds images.

        Args:
            images: normalised pixels, `image_size` square.
            train: patch dropout on, which needs `rngs={"dropout": key}`.

        Raises:
            DataError: images of another size or number of channels.
        """
        return CLIPImageOutput(self.encode(images, train=train))

    def encode(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B E"]:
        """Projected encodings of the images, not normalised, in float32."""
        pooled = self.pooled(images, train=train)
        return self.projection(pooled) if self.config.projection else pooled

    def pooled(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B D"]:
        """The pooled encoding before the projection: the features of the paper's linear probe."""
        x = self.features(images, train=train)  # [B, L, D]
        pooled = x[:, 0] if self.config.pooling == "class" else self.attention_pool(x)
        return constrain(pooled.astype(jnp.float32), "batch", "embed")

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Encoder output of all tokens after the final norm, the class token first."""
        return self.encoder(self.embed(images, train=train), train=train)

    def embed(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Embedded patches and class token plus positions, normalised if `pre_norm`."""
        c = self.config
        check_images(images, c)
        # As a convolution without padding: what fills no patch is left out.
        x = self.patch_embedding(images[:, : c.patched_size, : c.patched_size])  # [B, P, D]
        if c.class_token:
            x = prepend_tokens([self.class_token[None]], x)  # [B, 1 + P, D]
        x = x + self.position_embedding.rows(c.tokens).astype(x.dtype)
        if train and c.patch_dropout:
            x = self._drop_patches(x)
        x = self.pre_norm(x) if c.pre_norm else x
        return constrain(x, "batch", "length", "embed")

    def _drop_patches(self, x: Float[Array, "B L D"]) -> Float[Array, "B K D"]:
        """A random subset of each image's patches (FLIP, section 3); the class token stays."""
        c = self.config
        visible = max(1, int(c.grid**2 * (1 - c.patch_dropout)))
        # Positions are already added, so the order of the patches does not matter.
        noise = jax.random.uniform(self.make_rng("dropout"), (x.shape[0], c.grid**2))
        ids = jnp.argsort(noise, axis=1)[:, :visible] + int(c.class_token)  # [B, K]
        patches = jnp.take_along_axis(x, ids[..., None], axis=1)
        return jnp.concatenate([x[:, : int(c.class_token)], patches], axis=1)
