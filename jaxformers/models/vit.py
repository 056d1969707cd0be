"""ViT: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".

An image is split into patches, each projected to a vector (equation 1); a class token is
prepended, positions are added, and a pre-norm Transformer encoder follows (equations 2 to 4). What
the paper leaves open follows Google's released code.

Later models add to it, as fields of the configuration: DeiT a distillation token (Touvron et al.
2021), CaiT layer scale, ViT-22B query and key norms, DINOv2 registers (Darcet et al. 2024).

Axis letters: B batch, P patches, T prefix tokens (class, distillation, registers), L tokens
(T + P), D model width, C channels, N classes.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.layers import (
    Dropout,
    EncoderStack,
    Execution,
    Linear,
    Norm,
    PositionEmbedding,
)
from jaxformers.layers.norm import BatchNorm
from jaxformers.layers.pooling import AttentionPooling
from jaxformers.models.hybrid_stem import HybridStem
from jaxformers.models.patches import (
    PatchEmbedding,
    check_images,
    fixed_positions,
    pool,
    prepend_tokens,
    resized_table,
    with_zero_rows,
)
from jaxformers.models.vit_config import ViTConfig
from jaxformers.sharding import constrain


class ViT(nn.Module):
    """Vision Transformer with a classification head: `model.apply(variables, images)`.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020.

    Example:
        >>> config = jf.ViTConfig(8, 4, width=16, heads=2, feed_forward=32, layers=1, classes=3)
        >>> model, images = jf.ViT(config), jnp.zeros((2, 8, 8, 3))
        >>> variables = model.init(jax.random.key(0), images)
        >>> model.apply(variables, images).shape
        (2, 3)
    """

    config: ViTConfig
    execution: Execution = Execution()

    def setup(self):
        c, dtype = self.config, self.execution.compute_dtype
        if c.stem:
            self.stem = HybridStem(c.stem, c.channels, self.execution)
        channels = c.stem.outputs if c.stem else c.channels
        options = dict(execution=self.execution, use_bias=not c.embedding_norm)
        self.patch_embedding = PatchEmbedding(c.patch_size, channels, c.width, **options)
        small = nn.initializers.normal(0.02)
        if c.class_token:
            self.class_token = self.param("class_token", nn.initializers.zeros, (c.width,))
        if c.distillation_token:
            self.distillation_token = self.param("distillation_token", small, (c.width,))
        if c.register_tokens:
            registers = c.register_tokens, c.width
            self.register_tokens = self.param("register_tokens", small, registers)
        if c.positions == "learned":
            self.position_embedding = PositionEmbedding(c.prefix_rows + c.num_patches, c.width)
        self.drop = Dropout(c.dropout)
        if c.embedding_norm:
            self.embedding_norm = Norm("layer", c.norm_epsilon)
        ends_with_norm = c.final_norm and not c.head_norm
        self.encoder = EncoderStack(c.block, c.layers, ends_with_norm, self.execution)
        if c.pooling == "attention":
            self.attention_pooling = AttentionPooling(c.pooling_block, self.execution)
        # One final norm: at the encoder's end (equation 4) or, in MAE's fine-tuning, after pooling.
        if c.head_norm:
            self.head_norm = Norm("layer", c.norm_epsilon)
        if c.pre_logits:
            self.pre_logits = Linear((c.pooled_width,), (c.pre_logits,), dtype=dtype, gathered=True)
        if c.head_batch_norm:
            self.head_batch_norm = BatchNorm(1e-6, affine=False)
        if c.classes:
            shape = (c.pre_logits or c.pooled_width,), (c.classes,)
            # Zero initial weights for transfer (section 3.2).
            init = "probe" if c.head_batch_norm else "zeros"
            head = partial(Linear, *shape, gathered=True, kernel_init=init, bias_start=c.head_bias)
            self.head = head()
            if c.distillation_head:
                self.distillation_head = head()

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B N"]:
        """Float32 logits of the classes; without a head, the output of `pooled`.

        Args:
            images: normalised pixels of `image_size`; with `dynamic_size`, or positions that are
                computed or none, of any multiples of `patch_pixels`.
            train: dropout and stochastic depth on; needs `rngs={"dropout": key}`.

        Raises:
            DataError: images of another size or number of channels.
        """
        c = self.config
        if c.distillation_head and c.classes:
            x = self.features(images, train=train)
            return (self.head(x[:, 0]) + self.distillation_head(x[:, 1])) / 2
        pooled = self.pooled(images, train=train)
        if c.head_batch_norm:
            pooled = self.head_batch_norm(pooled, train=train)
        return self.head(pooled) if c.classes else pooled

    def pooled(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Array:
        """Pooled representation, the input of the head: `[B, D]`, `[B, 2 D]` or `[B, pre_logits]`.

        With a head for the distillation token, the mean of what the two heads read.
        """
        c = self.config
        x = self.encoder(self.embed(images, train=train), train=train)
        if c.pooling == "attention":
            x = self.attention_pooling(x[:, c.prefix_tokens :], train=train)
        elif c.distillation_head:  # pooling is "class", and both heads' inputs count alike
            x = x[:, :2].mean(1)
        else:
            x = pool(x, c.pooling, c.prefix_tokens)
        x = self.head_norm(x) if c.head_norm else x  # [B, D]; y of equation 4
        x = jnp.tanh(self.pre_logits(x)) if c.pre_logits else x
        return constrain(x, "batch", "embed")

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Encoder output of all tokens, the prefix tokens first."""
        return self.encoder(self.embed(images, train=train), train=train)

    def embed(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Embedded patches and prefix tokens plus positions: z_0 of equation 1."""
        c = self.config
        check_images(images.shape, c)
        x = self.patch_embedding(self.stem(images, train=train) if c.stem else images)  # [B, P, D]
        # The order of all published models: class, distillation, registers, patches.
        tokens = [self.class_token[None]] if c.class_token else []
        tokens += [self.distillation_token[None]] if c.distillation_token else []
        tokens += [self.register_tokens] if c.register_tokens else []
        x = prepend_tokens(tokens, x)  # [B, T + P, D]
        if c.positions != "none":
            x = x + self._positions(images.shape)[None].astype(x.dtype)
        x = self.drop(constrain(x, "batch", "length", "embed"), train=train)
        return self.embedding_norm(x) if c.embedding_norm else x

    def _positions(self, shape: tuple[int, ...]) -> Float[Array, "L D"]:
        """Positions of all tokens of images of `shape`; zeros for tokens that have none."""
        c, pixels = self.config, self.config.patch_pixels
        grid = shape[1] // pixels, shape[2] // pixels
        if c.positions == "sincos2d":
            # Computed for the grid at hand, so that images of other sizes have positions too.
            return fixed_positions(grid, c.width, c.positions, c.prefix_tokens)
        if c.positions == "learned":
            table = self.position_embedding.rows(c.prefix_rows + c.num_patches)[0]
        else:
            table = fixed_positions(c.grid, c.width, c.positions, c.prefix_rows)
        table = resized_table(table, c.grid, grid, c.position_resize)
        return with_zero_rows(table, c.prefix_rows, c.prefix_tokens - c.prefix_rows)
