"""MAE: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".

A ViT sees a quarter of an image's patches; a small decoder, given what it made of them and one
learned token for each patch hidden, paints the pixels of the hidden ones (figure 1). The released
code settles what the paper leaves open: where positions are added, and the variance's divisor.

Axis letters: B batch, P patches, K patches kept, D model width, E pixels of a patch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import BlockConfig, EncoderStack, Execution, Linear, PositionEmbedding
from jaxformers.models.vit import (
    PatchEmbedding,
    ViTConfig,
    check_images,
    fixed_positions,
    patchify,
    with_class_token,
)
from jaxformers.sharding import constrain

HEADLESS = dict(positions="sincos2d_mae", activation="gelu", classes=0)


@dataclass(frozen=True)
class MAEConfig:
    """The encoder, a ViT without head, and the decoder; the defaults are MAE-B's."""

    encoder: ViTConfig = field(default_factory=lambda: ViTConfig(**HEADLESS))
    """Its positions, of which the decoder has a table of its own kind too, fixed or learned."""
    decoder_width: int = 512
    decoder_layers: int = 8
    decoder_heads: int = 16
    decoder_feed_forward: int = 2048
    mask_ratio: float = 0.75
    """Share of an image's patches that is hidden; what is kept is rounded down."""
    norm_pix_loss: bool = True
    """Whether each patch's pixels are normalised before they are compared (table 1d)."""

    def __post_init__(self):
        for name in ("width", "layers", "heads", "feed_forward"):
            if (size := getattr(self, f"decoder_{name}")) < 1:
                raise ConfigError(f"an MAE's decoder_{name} of {size} is not above 0")
        if not 0 < self.mask_ratio < 1 or not self.kept(self.encoder.grid**2):
            raise ConfigError(
                f"a mask_ratio of {self.mask_ratio} keeps none or all of "
                f"{self.encoder.grid**2} patches"
            )
        if not self.encoder.class_token or self.encoder.positions == "none" or self.encoder.stem:
            raise ConfigError("an MAE's encoder needs its class token and positions, and no stem")
        if self.encoder.positions.startswith("sincos2d") and self.decoder_width % 4:
            raise ConfigError(
                f"positions of sines need a decoder_width divisible by 4, not {self.decoder_width}"
            )
        if self.encoder.classes or self.encoder.pre_logits or self.encoder.head_norm:
            raise ConfigError("an MAE's encoder has no head: set its classes to 0")
        self.decoder_block  # noqa: B018  (its checks speak early)

    @staticmethod
    def sized(name: str, patch_size: int = 16, **changes) -> MAEConfig:
        """One of ViT's sizes by name; `changes` are of the encoder's fields or of these."""
        own = {f.name for f in fields(MAEConfig)} & changes.keys()
        encoder = {key: value for key, value in changes.items() if key not in own}
        made = ViTConfig.sized(name, patch_size, **(HEADLESS | encoder))
        return MAEConfig(**({"encoder": made} | {key: changes[key] for key in own}))

    @staticmethod
    def base(patch_size: int = 16, **changes) -> MAEConfig:
        """111,907,840 parameters, counted with the two fixed tables of published files."""
        return MAEConfig.sized("base", patch_size, **changes)

    @staticmethod
    def large(patch_size: int = 16, **changes) -> MAEConfig:
        """329,541,888 parameters, the two fixed tables counted."""
        return MAEConfig.sized("large", patch_size, **changes)

    @staticmethod
    def huge(patch_size: int = 14, **changes) -> MAEConfig:
        """657,074,508 parameters, the two fixed tables counted."""
        return MAEConfig.sized("huge", patch_size, **changes)

    @property
    def image_size(self) -> int:
        """The encoder's."""
        return self.encoder.image_size

    @property
    def channels(self) -> int:
        """The encoder's."""
        return self.encoder.channels

    @property
    def classes(self) -> int:
        """None: an MAE has no head."""
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def kept(self, patches: int) -> int:
        """How many of so many patches the encoder sees."""
        return int(patches * (1 - self.mask_ratio))

    @property
    def pixels(self) -> int:
        """E."""
        return self.encoder.patch_size**2 * self.encoder.channels

    @property
    def decoder_block(self) -> BlockConfig:
        """The decoder's blocks: the encoder's at their own size, without stochastic depth."""
        e = self.encoder
        return BlockConfig(
            width=self.decoder_width,
            heads=self.decoder_heads,
            feed_forward=self.decoder_feed_forward,
            activation=e.activation,
            norm_position="pre",
            norm_epsilon=e.norm_epsilon,
            attention_bias=e.attention_bias,
            dropout=e.dropout,
            attention_dropout=e.attention_dropout,
            activation_dropout=e.dropout,
        )


class MAEOutput(NamedTuple):
    """What an MAE makes of images."""

    prediction: Any
    """`[B, P, E]`: float32 pixels of each patch, normalised with `norm_pix_loss`."""
    mask: Any
    """`[B, P]`: 1 for patches hidden from the encoder, 0 for those it saw."""
    loss: Any
    """The mean squared error over the hidden patches (section 3)."""


class MAE(nn.Module):
    """Encoder and decoder: `model.apply(variables, images, noise=noise)`.

    The encoder's parameters are named as ViT's.
    """

    config: MAEConfig
    execution: Execution = Execution()

    def setup(self):
        c, e, execution = self.config, self.config.encoder, self.execution
        self.patch_embedding = PatchEmbedding(
            e.patch_size, e.channels, e.width, "xavier", execution
        )
        small = nn.initializers.normal(0.02)
        self.class_token = self.param("class_token", small, (e.width,))
        self.encoder = EncoderStack(e.block, e.layers, True, execution)
        dtype, common = execution.compute_dtype, dict(gathered=True, platform=execution.platform)
        self.decoder_embedding = Linear((e.width,), (c.decoder_width,), dtype=dtype, **common)
        self.mask_token = self.param("mask_token", small, (c.decoder_width,))
        self.decoder = EncoderStack(c.decoder_block, c.decoder_layers, True, execution)
        self.decoder_prediction = Linear((c.decoder_width,), (c.pixels,), **common)
        if e.positions == "learned":
            self.position_embedding = PositionEmbedding(e.tokens, e.width)
            self.decoder_position_embedding = PositionEmbedding(e.tokens, c.decoder_width)

    def __call__(
        self,
        images: Float[Array, "B H W C"],
        noise: Float[Array, "B P"] | None = None,
        *,
        train: bool = False,
    ) -> MAEOutput:
        """Predicted pixels, which patches were hidden, and the loss.

        Args:
            images: normalised pixels.
            noise: a number for each patch: those with the smallest are kept. None: drawn anew
                from `rngs={"dropout": key}`.
            train: dropout on, where the configuration has any.

        Raises:
            DataError: images that the model was not made for, or noise of another shape.
            ConfigError: neither noise nor random numbers to draw it from.
        """
        tokens, rank = self._encode(images, noise, train=train)
        prediction = self._decode(tokens, rank, images.shape, train=train)
        mask = (rank >= tokens.shape[1] - 1).astype(jnp.float32)
        target = self.target(images)
        error = jnp.square(prediction - target).mean(-1)
        return MAEOutput(prediction, mask, (error * mask).sum() / mask.sum())

    def visible(self, images: Array, noise: Array | None = None, *, train: bool = False) -> Array:
        """The encoder's output `[B, 1+K, D]` over class token and kept patches, least noise first.

        Arguments as for `__call__`.
        """
        return self._encode(images, noise, train=train)[0]

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """The encoder's output over all patches, none hidden, the class token first."""
        first, x = self._embed(images)
        return self.encoder(with_class_token(first, x), train=train)

    def pooled(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Array:
        """The class token's `features`, `[B, D]`."""
        return constrain(self.features(images, train=train)[:, 0], "batch", "embed")

    def target(self, images: Float[Array, "B H W C"]) -> Float[Array, "B P E"]:
        """The float32 pixels that a prediction is compared to."""
        patches = patchify(images.astype(jnp.float32), self.config.encoder.patch_size)
        if not self.config.norm_pix_loss:
            return patches
        mean, deviation = patch_statistics(patches)
        return (patches - mean) / deviation

    def _embed(self, images):
        """The class token, and patches, each with its position (the class token's may be zero)."""
        e = self.config.encoder
        check_images(images.shape, e)
        x = self.patch_embedding(images)
        table = self._positions(images.shape, e.width, "position_embedding")
        return self.class_token + table[0], x + table[None, 1:].astype(x.dtype)

    def _positions(self, shape, width: int, name: str):
        e = self.config.encoder
        if e.positions == "learned":
            return getattr(self, name).rows(e.tokens)[0]
        grid = (size // e.patch_size for size in shape[1:3])
        return fixed_positions(*grid, width, e.positions, True)

    def _encode(self, images, noise, *, train: bool):
        """Encoded kept tokens after the class token, and each patch's rank by noise `[B, P]`."""
        first, x = self._embed(images)
        batch, patches, _ = x.shape
        rank = self._ranks(noise, batch, patches)
        chosen = _chosen(rank, self.config.kept(patches), x.dtype)
        x = jnp.einsum("BKP,BPD->BKD", chosen, x, precision="highest")
        x = constrain(with_class_token(first, x), "batch", "length", "embed")
        return self.encoder(x, train=train), rank

    def _ranks(self, noise, batch: int, patches: int):
        """The place of each patch when an image's patches are ordered by noise (section 3)."""
        if noise is None and not (self.has_rng("dropout") or self.is_initializing()):
            raise ConfigError('an MAE needs noise=, or rngs={"dropout": key} to draw it from')
        if noise is None:
            noise = jax.random.uniform(self.make_rng("dropout"), (batch, patches))
        if noise.shape != (batch, patches):
            raise DataError(f"noise of shape {noise.shape} for {batch} images of {patches} patches")
        return jnp.argsort(jnp.argsort(noise, axis=1), axis=1)

    def _decode(self, tokens, rank, shape, *, train: bool):
        """Pixels of all patches; those hidden are told to the decoder by the mask token."""
        x = self.decoder_embedding(tokens)
        kept = _chosen(rank, x.shape[1] - 1, x.dtype)
        placed = jnp.einsum("BKP,BKD->BPD", kept, x[:, 1:], precision="highest")
        hidden = (1 - kept.sum(1))[..., None] * self.mask_token.astype(x.dtype)[None, None]
        x = jnp.concatenate([x[:, :1], placed + hidden], axis=1)
        table = self._positions(shape, self.config.decoder_width, "decoder_position_embedding")
        x = constrain(x + table[None].astype(x.dtype), "batch", "length", "embed")
        return self.decoder_prediction(self.decoder(x, train=train)[:, 1:])


def _chosen(rank, kept: int, dtype) -> Float[Array, "B K P"]:
    """One-hot rows of the kept patches, so that gathering and its gradient are products."""
    places = jnp.arange(kept, dtype=rank.dtype)[None, :, None]
    return (rank[:, None, :] == places).astype(dtype)


def patch_statistics(
    patches: Float[Array, "B P E"],
) -> tuple[Float[Array, "B P 1"], Float[Array, "B P 1"]]:
    """Each patch's mean and deviation, the variance over E - 1 as in the released code."""
    mean = patches.mean(-1, keepdims=True)
    variance = jnp.square(patches - mean).sum(-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, jnp.sqrt(variance + 1e-6)


def unpatchify(
    patches: Float[Array, "B P E"], size: int, shape: tuple[int, int]
) -> Float[Array, "B H W C"]:
    """Images of `shape` pixels from flat patches of `size`: the inverse of `patchify`."""
    rows, columns = shape[0] // size, shape[1] // size
    cut = jnp.asarray(patches).reshape(patches.shape[0], rows, columns, size, size, -1)
    return cut.swapaxes(2, 3).reshape(patches.shape[0], rows * size, columns * size, -1)


def reconstruct(
    config: MAEConfig, images: Float[Array, "B H W C"], output: MAEOutput, *, keep: bool = True
) -> Float[Array, "B H W C"]:
    """The images as an MAE paints them, on the scale of `images` (figure 2).

    A normalised prediction takes the mean and deviation of the true patch. `keep`: whether the
    patches that the encoder saw stand as they are.
    """
    patches = patchify(jnp.asarray(images, jnp.float32), config.encoder.patch_size)
    painted = jnp.asarray(output.prediction)
    if config.norm_pix_loss:
        mean, deviation = patch_statistics(patches)
        painted = painted * deviation + mean
    if keep:
        painted = jnp.where(jnp.asarray(output.mask)[..., None] > 0, painted, patches)
    return unpatchify(painted, config.encoder.patch_size, images.shape[1:3])
