"""MAE: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".

A ViT encodes the visible quarter of an image's patches; a small decoder, given their encodings and
a learned mask token for each masked patch, predicts the pixels of the masked ones (figure 1). What
the paper leaves open follows the released code: where positions are added, and the divisor of the
variance.

Axis letters: B batch, P patches, K visible patches, L tokens (1 + P), D model width, E numbers of a
patch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.fields import CheckedFields, OpenFraction, PositiveInt
from jaxformers.layers import BlockConfig, EncoderStack, Execution, Linear, PositionEmbedding
from jaxformers.models.patches import (
    PatchEmbedding,
    check_images,
    fixed_positions,
    patchify,
    prepend_tokens,
    resized_table,
)
from jaxformers.models.vit import ViTConfig
from jaxformers.sharding import constrain

Statistics = Literal["true", "visible"]
HEADLESS: dict[str, Any] = dict(
    positions="sincos2d_mae", position_resize="bicubic", activation="gelu", classes=0
)


@dataclass(frozen=True)
class MAEConfig(CheckedFields):
    """The encoder, a ViT without head, and the decoder; the defaults are those of MAE-B."""

    encoder: ViTConfig = field(default_factory=lambda: ViTConfig(**HEADLESS))
    """The ViT; the decoder has a position table of the same kind, fixed or learned."""
    decoder_width: PositiveInt = 512
    decoder_layers: PositiveInt = 8
    decoder_heads: PositiveInt = 16
    decoder_feed_forward: PositiveInt = 2048
    mask_ratio: OpenFraction = 0.75
    """Fraction of an image's patches that is masked; the number of visible ones is rounded down."""
    norm_pix_loss: bool = True
    """Whether each patch's target pixels are normalised (table 1d)."""

    def __post_init__(self):
        super().__post_init__()
        if not self.num_visible(self.encoder.num_patches):
            raise ConfigError(
                f"a mask_ratio of {self.mask_ratio} masks none or all of "
                f"{self.encoder.num_patches} patches"
            )
        if not self.encoder.class_token or self.encoder.positions == "none" or self.encoder.stem:
            raise ConfigError("an MAE's encoder needs its class token and positions, and no stem")
        if self.encoder.positions.startswith("sincos2d") and self.decoder_width % 4:
            raise ConfigError(
                f"positions of sines need a decoder_width divisible by 4, not {self.decoder_width}"
            )
        if self.encoder.classes or self.encoder.pre_logits or self.encoder.head_norm:
            raise ConfigError("an MAE's encoder has no head: set its classes to 0")
        if self.encoder.prefix_tokens > 1 or self.encoder.prefix_rows != 1:
            raise ConfigError(
                "an MAE's encoder has its class token, with a position, as only prefix token: set "
                "distillation_token, register_tokens and prefix_positions to their defaults"
            )
        if self.encoder.embedding_norm or not self.encoder.final_norm:
            raise ConfigError("an MAE's encoder has no embedding_norm, and it has its final_norm")
        self.decoder_block  # noqa: B018  (validates it here)

    @staticmethod
    def sized(name: str, patch_size: int = 16, **changes) -> MAEConfig:
        """A ViT size by name; `changes` set fields of the encoder or of this configuration."""
        own_names = {f.name for f in fields(MAEConfig)}
        own = {key: value for key, value in changes.items() if key in own_names}
        encoder_fields = {key: value for key, value in changes.items() if key not in own_names}
        encoder = ViTConfig.sized(name, patch_size, **(HEADLESS | encoder_fields))
        return MAEConfig(**({"encoder": encoder} | own))

    @staticmethod
    def base(patch_size: int = 16, **changes) -> MAEConfig:
        """MAE-B: 111,907,840 parameters, including the two fixed tables of published files."""
        return MAEConfig.sized("base", patch_size, **changes)

    @staticmethod
    def large(patch_size: int = 16, **changes) -> MAEConfig:
        """MAE-L: 329,541,888 parameters, including the two fixed tables."""
        return MAEConfig.sized("large", patch_size, **changes)

    @staticmethod
    def huge(patch_size: int = 14, **changes) -> MAEConfig:
        """MAE-H: 657,074,508 parameters, including the two fixed tables."""
        return MAEConfig.sized("huge", patch_size, **changes)

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Side, or height and width, of the encoder's images in pixels."""
        return self.encoder.image_size

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the encoder's images in pixels."""
        return self.encoder.image_shape

    @property
    def channels(self) -> int:
        """Channels of the encoder's images."""
        return self.encoder.channels

    @property
    def classes(self) -> int:
        """Always 0: an MAE has no head."""
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Always empty: an MAE has no head."""
        return ()

    def num_visible(self, patches: int) -> int:
        """K: how many of an image's `patches` the encoder sees."""
        return int(patches * (1 - self.mask_ratio))

    @property
    def patch_dim(self) -> int:
        """E: numbers of a flattened patch, `patch_size`^2 x channels."""
        return self.encoder.patch_size**2 * self.encoder.channels

    @property
    def decoder_block(self) -> BlockConfig:
        """Configuration of the decoder's blocks: the encoder's except size and stochastic depth."""
        e = self.encoder
        return BlockConfig(
            width=self.decoder_width,
            heads=self.decoder_heads,
            feed_forward=self.decoder_feed_forward,
            activation=e.activation,
            norm_position="pre",
            norm_epsilon=e.norm_epsilon,
            attention_bias=e.attention_bias,
            qkv_bias=e.qkv_bias,
            query_key_norm=e.query_key_norm,
            gated=e.gated,
            layer_scale=e.layer_scale,
            dropout=e.dropout,
            attention_dropout=e.attention_dropout,
            activation_dropout=e.dropout,
        )


class MAEOutput(NamedTuple):
    """Prediction, mask and loss of an MAE."""

    prediction: Any
    """`[B, P, E]`: float32 pixels of each patch, normalised with `norm_pix_loss`."""
    mask: Any
    """`[B, P]`: 1 for masked patches, 0 for visible ones."""
    loss: Any
    """Scalar: mean squared error over the masked patches (section 3)."""


class MAE(nn.Module):
    """Masked autoencoder: `model.apply(variables, images, noise=noise)`.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", 2021.
    The encoder's parameters have the names of ViT's, so that a ViT can start from them.

    Example:
        >>> encoder = jf.ViTConfig(16, 4, width=16, heads=2, feed_forward=32, layers=1, classes=0)
        >>> config = jf.MAEConfig(encoder, decoder_width=16, decoder_heads=2, decoder_layers=1)
        >>> model, images = jf.MAE(config), jnp.zeros((2, 16, 16, 3))
        >>> variables = model.init(jax.random.key(0), images)
        >>> output = model.apply(variables, images, rngs={"dropout": jax.random.key(1)})
        >>> output.mask.sum(1)  # three quarters of 16 patches
        Array([12., 12.], dtype=float32)
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
        self.decoder_prediction = Linear((c.decoder_width,), (c.patch_dim,), **common)
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
        """Predicted pixels, mask and loss.

        Args:
            images: normalised pixels.
            noise: a number for each patch; the K patches with the smallest are visible. None:
                drawn from `rngs={"dropout": key}`.
            train: dropout on, where the configuration has any.

        Raises:
            DataError: images or noise of a wrong shape.
            ConfigError: neither noise nor an rng to draw it from.
        """
        tokens, rank = self._encode(images, noise, train=train)  # [B, 1 + K, D], [B, P]
        prediction = self._decode(tokens, rank, images.shape, train=train)  # [B, P, E]
        mask = (rank >= tokens.shape[1] - 1).astype(jnp.float32)  # the K smallest are visible
        target = self.target(images)
        error = jnp.square(prediction - target).mean(-1)  # [B, P]
        return MAEOutput(prediction, mask, (error * mask).sum() / mask.sum())

    def visible(self, images: Array, noise: Array | None = None, *, train: bool = False) -> Array:
        """Encoder output `[B, 1 + K, D]` of class token and visible patches, least noise first.

        Arguments as for `__call__`.
        """
        return self._encode(images, noise, train=train)[0]

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Encoder output of all patches, none masked, the class token first."""
        first, x = self._embed(images)
        return self.encoder(prepend_tokens([first[None]], x), train=train)

    def pooled(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Array:
        """Encoder output of the class token over all patches, `[B, D]`."""
        return constrain(self.features(images, train=train)[:, 0], "batch", "embed")

    def target(self, images: Float[Array, "B H W C"]) -> Float[Array, "B P E"]:
        """Float32 target of the prediction: pixels, normalised by patch with `norm_pix_loss`."""
        patches = patchify(images.astype(jnp.float32), self.config.encoder.patch_size)  # [B, P, E]
        if not self.config.norm_pix_loss:
            return patches
        mean, deviation = patch_statistics(patches)
        return (patches - mean) / deviation

    def _embed(self, images):
        """Class token `[D]` and patches `[B, P, D]`, positions added."""
        e = self.config.encoder
        check_images(images.shape, e)
        # Positions are added before masking, so that a visible patch keeps its own. In a fixed
        # table the class token's row, the first, is zero.
        x = self.patch_embedding(images)
        table = self._positions(images.shape, e.width, "position_embedding")  # [1 + P, D]
        return self.class_token + table[0], x + table[None, 1:].astype(x.dtype)

    def _positions(self, shape, width: int, name: str):
        """Position table `[1 + P, width]` for images of `shape`, fixed or the module `name`'s."""
        e = self.config.encoder
        grid = shape[1] // e.patch_size, shape[2] // e.patch_size
        if e.positions == "sincos2d":
            return fixed_positions(grid, width, e.positions, 1)
        if e.positions == "learned":
            table = getattr(self, name).rows(e.tokens)[0]
        else:
            table = fixed_positions(e.grid, width, e.positions, 1)
        # Fixed tables are resized too, as the authors do, rather than computed for the new grid.
        return resized_table(table, e.grid, grid, e.position_resize)

    def _encode(self, images, noise, *, train: bool):
        """Encoded class token and visible patches `[B, 1 + K, D]`; ranks of patches `[B, P]`."""
        first, x = self._embed(images)
        batch, patches, _ = x.shape
        rank = self._ranks(noise, batch, patches)
        # Gathers the visible patches in the order of their ranks. One-hot rows times numbers are
        # exact at the highest precision only.
        selection = _visible_one_hot(rank, self.config.num_visible(patches), x.dtype)
        x = jnp.einsum("BKP,BPD->BKD", selection, x, precision="highest")
        x = constrain(prepend_tokens([first[None]], x), "batch", "length", "embed")
        return self.encoder(x, train=train), rank

    def _ranks(self, noise, batch: int, patches: int):
        """Rank `[B, P]` of each patch when an image's patches are sorted by noise (section 3)."""
        if noise is None and not (self.has_rng("dropout") or self.is_initializing()):
            raise ConfigError('an MAE needs noise=, or rngs={"dropout": key} to draw it from')
        if noise is None:
            noise = jax.random.uniform(self.make_rng("dropout"), (batch, patches))
        if noise.shape != (batch, patches):
            raise DataError(f"noise of shape {noise.shape} for {batch} images of {patches} patches")
        # argsort gives the patch of each rank; its inverse, the argsort again, the patch's rank.
        return jnp.argsort(jnp.argsort(noise, axis=1), axis=1)

    def _decode(self, tokens, rank, shape, *, train: bool):
        """Predicted pixels `[B, P, E]` of all patches; masked ones enter as the mask token."""
        x = self.decoder_embedding(tokens)
        # Back to the order of patches by the transposed product: zero where a patch is masked,
        # which the mask token then fills.
        selection = _visible_one_hot(rank, x.shape[1] - 1, x.dtype)  # [B, K, P]
        visible = jnp.einsum("BKP,BKD->BPD", selection, x[:, 1:], precision="highest")
        is_masked = (1 - selection.sum(1))[..., None]  # [B, P, 1]
        masked = is_masked * self.mask_token.astype(x.dtype)[None, None]
        x = jnp.concatenate([x[:, :1], visible + masked], axis=1)  # [B, 1 + P, D]
        table = self._positions(shape, self.config.decoder_width, "decoder_position_embedding")
        x = constrain(x + table[None].astype(x.dtype), "batch", "length", "embed")
        return self.decoder_prediction(self.decoder(x, train=train)[:, 1:])


def _visible_one_hot(rank, num_visible: int, dtype) -> Float[Array, "B K P"]:
    """One-hot rows of the visible patches by rank; gathering and its gradient are then products."""
    ranks = jnp.arange(num_visible, dtype=rank.dtype)[None, :, None]
    return (rank[:, None, :] == ranks).astype(dtype)


def patch_statistics(
    patches: Float[Array, "B P E"],
) -> tuple[Float[Array, "B P 1"], Float[Array, "B P 1"]]:
    """Mean and standard deviation of each patch."""
    mean = patches.mean(-1, keepdims=True)
    # The unbiased variance, over E - 1, as torch.var in the released code.
    variance = jnp.square(patches - mean).sum(-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, jnp.sqrt(variance + 1e-6)


def unpatchify(
    patches: Float[Array, "B P E"], size: int, shape: tuple[int, int]
) -> Float[Array, "B H W C"]:
    """Assembles images of `shape` (height, width) from flattened patches: inverts `patchify`."""
    rows, columns = shape[0] // size, shape[1] // size
    x = jnp.asarray(patches).reshape(patches.shape[0], rows, columns, size, size, -1)
    x = x.swapaxes(2, 3)  # [B, rows, size, columns, size, C]
    return x.reshape(patches.shape[0], rows * size, columns * size, -1)


def reconstruct(
    config: MAEConfig,
    images: Float[Array, "B H W C"],
    output: MAEOutput,
    *,
    keep: bool = True,
    statistics: Statistics = "true",
) -> Float[Array, "B H W C"]:
    """Images assembled from an MAE's predictions, on the scale of `images` (figure 2).

    Args:
        config: the MAE's.
        images: its inputs.
        output: its output for them.
        keep: whether visible patches are taken from `images` rather than from the prediction.
        statistics: what scales normalised predictions (`norm_pix_loss`) back. "true": each patch's
            own mean and deviation, of hidden ones too, which the MAE does not know. "visible": the
            averages over the image's visible patches, so that nothing hidden is used.
    """
    patches = patchify(jnp.asarray(images, jnp.float32), config.encoder.patch_size)
    pixels = jnp.asarray(output.prediction)
    if config.norm_pix_loss:
        mean, deviation = patch_statistics(patches)  # [B, P, 1] each
        if statistics == "visible":
            visible = 1.0 - jnp.asarray(output.mask)[..., None]  # [B, P, 1]
            count = visible.sum(1, keepdims=True)
            mean = (visible * mean).sum(1, keepdims=True) / count
            deviation = (visible * deviation).sum(1, keepdims=True) / count
        pixels = pixels * deviation + mean
    if keep:
        pixels = jnp.where(jnp.asarray(output.mask)[..., None] > 0, pixels, patches)
    _, height, width, _ = images.shape
    return unpatchify(pixels, config.encoder.patch_size, (height, width))
