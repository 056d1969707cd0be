"""ViT: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words".

An image is split into patches, each projected to a vector (equation 1); a class token is
prepended, positions are added, and a pre-norm Transformer encoder follows (equations 2 to 4). What
the paper leaves open follows Google's released code.

Axis letters: B batch, P patches, L tokens (P, or 1 + P with a class token), D model width,
C channels, E numbers of a patch, N classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError, check_choices
from jaxformers.layers import (
    Activation,
    BlockConfig,
    Dropout,
    EncoderStack,
    Execution,
    Linear,
    Norm,
    PositionEmbedding,
    grid_sinusoids,
)
from jaxformers.layers.linear import Init, initializer, multiply
from jaxformers.layers.norm import BatchNorm
from jaxformers.models.hybrid_stem import HybridStem, HybridStemConfig
from jaxformers.models.problem_type import ProblemType
from jaxformers.sharding import constrain

Positions = Literal["learned", "sincos2d", "sincos2d_mae", "none"]
SIZES = {  # width, layers, heads (table 1; tiny and small are of Touvron et al. 2021)
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


@dataclass(frozen=True)
class ViTConfig:
    """Shape and choices of a ViT; the defaults are ViT-B/16 at 224 pixels, Google's.

    `activation`: Google's models use the tanh approximation of GELU (`gelu_tanh`), those of Hugging
    Face, timm and MAE the exact one (`gelu`).
    """

    image_size: int = 224
    """Side in pixels of the square input images, a multiple of `patch_pixels`."""
    patch_size: int = 16
    """Side of a patch in pixels; with a stem, in pixels of the stem's feature map."""
    channels: int = 3
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    layers: int = 12
    class_token: bool = True
    pooling: Literal["class", "average"] = "class"
    """Input of the head: the class token, or the mean of the patch tokens."""
    positions: Positions = "learned"
    """A learned table, or fixed 2D sinusoids, big_vision's or MAE's."""
    pre_logits: int | None = None
    """Width of the tanh layer before the head (section 3.1, for pre-training); None: no layer."""
    head_norm: bool = False
    """Moves the final norm from the encoder's end to after pooling (MAE's fine-tuning)."""
    head_batch_norm: bool = False
    """Adds a batch norm without scale or bias before the head (MAE's linear probe)."""
    classes: int = 1000
    """Outputs of the head; 0: no head."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, in order; empty: numbers."""
    problem_type: ProblemType | None = None
    """What the logits mean, in `problem_type.class_scores`; None: a softmax over the classes, of a
    single class a sigmoid."""
    head_bias: float = 0.0
    """Initial value of the head's bias, such as -10 for the sigmoid loss over 21,843 classes."""
    activation: Activation = "gelu_tanh"
    norm_epsilon: float = 1e-6
    attention_bias: bool = True
    dropout: float = 0.0
    """After each dense layer except query, key and value, and after adding positions."""
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    """Stochastic depth: rate at which an example skips a sub-layer of the last block; rates grow
    linearly from 0 at the first block."""
    stem: HybridStemConfig | None = None
    """The ResNet whose feature map is split into patches ("hybrid", section 3.1); None: none."""

    def __post_init__(self):
        for name in ("image_size", "patch_size", "channels", "width", "heads", "layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a ViT's {name} of {getattr(self, name)} is not above 0")
        check_choices(self)
        if self.classes < 0 or (self.pre_logits is not None and self.pre_logits < 1):
            raise ConfigError(
                f"classes {self.classes} must be 0 (no head) or more, pre_logits {self.pre_logits} "
                "None (no such layer) or more than 0"
            )
        if self.image_size % self.patch_pixels:
            raise ConfigError(
                f"images of {self.image_size} pixels do not divide into patches of "
                f"{self.patch_pixels}: choose a multiple of {self.patch_pixels}"
            )
        if self.pooling == "class" and not self.class_token:
            raise ConfigError("pooling 'class' needs the class token: choose pooling 'average'")
        if self.positions.startswith("sincos2d") and self.width % 4:
            raise ConfigError(f"positions of sines need a width divisible by 4, not {self.width}")
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names for {self.classes} classes"
            )
        self.block  # noqa: B018  (validates it here)

    @staticmethod
    def sized(name: str, patch_size: int = 16, **changes) -> ViTConfig:
        """A size of `SIZES` by name, feed-forward width 4 x width; `changes` set other fields."""
        width, layers, heads = SIZES[name]
        size = dict(width=width, layers=layers, heads=heads, feed_forward=4 * width)
        return ViTConfig(**(dict(patch_size=patch_size) | size | changes))

    @staticmethod
    def tiny(patch_size: int = 16, **changes) -> ViTConfig:
        """12 layers, width 192, 3 heads."""
        return ViTConfig.sized("tiny", patch_size, **changes)

    @staticmethod
    def small(patch_size: int = 16, **changes) -> ViTConfig:
        """12 layers, width 384, 6 heads."""
        return ViTConfig.sized("small", patch_size, **changes)

    @staticmethod
    def base(patch_size: int = 16, **changes) -> ViTConfig:
        """12 layers, width 768: 85,798,656 parameters without the head at patch size 16."""
        return ViTConfig.sized("base", patch_size, **changes)

    @staticmethod
    def large(patch_size: int = 16, **changes) -> ViTConfig:
        """24 layers, width 1024: 303,301,632 parameters without the head at patch size 16."""
        return ViTConfig.sized("large", patch_size, **changes)

    @staticmethod
    def huge(patch_size: int = 14, **changes) -> ViTConfig:
        """32 layers, width 1280: 630,764,800 parameters without the head at patch size 14."""
        return ViTConfig.sized("huge", patch_size, **changes)

    @staticmethod
    def hybrid_base(patch_size: int = 1, **changes) -> ViTConfig:
        """R50+ViT-B/16: 97,890,112 parameters without the head."""
        return ViTConfig.sized("base", patch_size, **(dict(stem=HybridStemConfig()) | changes))

    @staticmethod
    def hybrid_large(patch_size: int = 1, **changes) -> ViTConfig:
        """R50+ViT-L/32, with a ResNet of all four stages."""
        stem = HybridStemConfig(depths=(3, 4, 6, 3))
        return ViTConfig.sized("large", patch_size, **(dict(stem=stem) | changes))

    @property
    def patch_pixels(self) -> int:
        """Side of a patch in pixels of the input image."""
        return self.patch_size * (self.stem.stride if self.stem else 1)

    @property
    def grid(self) -> int:
        """Number of patches along a side of the image."""
        return self.image_size // self.patch_pixels

    @property
    def tokens(self) -> int:
        """Number of tokens of an image, including the class token if there is one."""
        return self.grid**2 + self.class_token

    @property
    def block(self) -> BlockConfig:
        """Configuration of the encoder's blocks: pre-norm (equations 2 and 3)."""
        return BlockConfig(
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            activation=self.activation,
            norm_position="pre",
            norm_epsilon=self.norm_epsilon,
            attention_bias=self.attention_bias,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.dropout,
            drop_path=self.drop_path,
        )


def patchify(images: Float[Array, "B H W C"], size: int) -> Float[Array, "B P E"]:
    """Splits images into flattened patches of `size` x `size` pixels, in row-major order.

    The E = size * size * C numbers of a patch are in the order row, column, channel.

    Raises:
        DataError: images that do not divide into such patches.
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise DataError(f"images of {height} x {width} pixels do not divide into patches of {size}")
    rows, columns = height // size, width // size
    x = images.reshape(batch, rows, size, columns, size, channels)
    x = x.swapaxes(2, 3)  # [B, rows, columns, size, size, C]
    return x.reshape(batch, rows * columns, size * size * channels)


class PatchEmbedding(nn.Module):
    """Linear projection of flattened patches (equation 1).

    It is a convolution with kernel `[size, size, C, D]` and stride `size`, computed as one matrix
    product.
    """

    size: int
    channels: int
    width: int
    kernel_init: Init = "lecun"
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B P D"]:
        """Projects each patch, in row-major order."""
        dtype = self.execution.compute_dtype
        shape = (self.size, self.size, self.channels, self.width)
        kernel = self.param("kernel", initializer(self.kernel_init, 3), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        # Gathered over fsdp before the product: a kernel of 768 rows (16 x 16 x 3) is small.
        kernel = constrain(kernel, None, None, None, None).reshape(-1, self.width)  # [E, D]
        patches = patchify(images, self.size).astype(dtype)  # [B, P, E]
        x = multiply(patches, kernel.astype(dtype), 1, self.execution.platform)
        return constrain(x + bias.astype(dtype)[None, None], "batch", "length", "embed")


def fixed_positions(
    height: int, width: int, channels: int, kind: Positions, class_token: bool
) -> Float[Array, "L D"]:
    """Fixed 2D sinusoid table of a grid of patches; the class token's row, first, is zero."""
    table = grid_sinusoids(
        height, width, channels, "mae" if kind == "sincos2d_mae" else "big_vision"
    )
    return jnp.pad(jnp.asarray(table), ((int(class_token), 0), (0, 0)))


class ViT(nn.Module):
    """Vision Transformer with a classification head: `model.apply(variables, images)`."""

    config: ViTConfig
    execution: Execution = Execution()

    def setup(self):
        c, dtype = self.config, self.execution.compute_dtype
        if c.stem:
            self.stem = HybridStem(c.stem, c.channels, self.execution)
        channels = c.stem.outputs if c.stem else c.channels
        self.patch_embedding = PatchEmbedding(
            c.patch_size, channels, c.width, execution=self.execution
        )
        if c.class_token:
            self.class_token = self.param("class_token", nn.initializers.zeros, (c.width,))
        if c.positions == "learned":
            self.position_embedding = PositionEmbedding(c.tokens, c.width)
        self.drop = Dropout(c.dropout)
        self.encoder = EncoderStack(c.block, c.layers, not c.head_norm, self.execution)
        # One final norm: at the encoder's end (equation 4) or, in MAE's fine-tuning, after pooling.
        if c.head_norm:
            self.head_norm = Norm("layer", c.norm_epsilon)
        if c.pre_logits:
            self.pre_logits = Linear((c.width,), (c.pre_logits,), dtype=dtype, gathered=True)
        if c.head_batch_norm:
            self.head_batch_norm = BatchNorm(1e-6, affine=False)
        if c.classes:
            shape = (c.pre_logits or c.width,), (c.classes,)
            # Zero initial weights for transfer (section 3.2).
            init = "probe" if c.head_batch_norm else "zeros"
            start = dict(kernel_init=init, bias_start=c.head_bias)
            self.head = Linear(*shape, gathered=True, **start)

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B N"]:
        """Float32 logits of the classes; without a head, the output of `pooled`.

        Args:
            images: normalised pixels, `image_size` square, or of any multiple of `patch_pixels`
                where positions are not learned.
            train: dropout and stochastic depth on; needs `rngs={"dropout": key}`.

        Raises:
            DataError: images of another size or number of channels.
        """
        pooled = self.pooled(images, train=train)
        if self.config.head_batch_norm:
            pooled = self.head_batch_norm(pooled, train=train)
        return self.head(pooled) if self.config.classes else pooled

    def pooled(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Array:
        """Pooled representation, the input of the head: `[B, D]` or `[B, pre_logits]`."""
        c, x = self.config, self.embed(images, train=train)
        of_class = c.pooling == "class"
        x = self.encoder(x, train=train)
        x = x[:, 0] if of_class else x[:, int(c.class_token) :].mean(1)
        x = self.head_norm(x) if c.head_norm else x  # [B, D]; y of equation 4
        x = jnp.tanh(self.pre_logits(x)) if c.pre_logits else x
        return constrain(x, "batch", "embed")

    def features(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Encoder output of all tokens, the class token first."""
        return self.encoder(self.embed(images, train=train), train=train)

    def embed(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B L D"]:
        """Embedded patches and class token plus positions: z_0 of equation 1."""
        c = self.config
        check_images(images.shape, c)
        x = self.patch_embedding(self.stem(images, train=train) if c.stem else images)  # [B, P, D]
        if c.class_token:
            x = prepend_class_token(self.class_token, x)  # [B, 1 + P, D]
        if c.positions == "learned":
            x = x + self.position_embedding.rows(c.tokens).astype(x.dtype)
        elif c.positions != "none":
            # Computed for the grid at hand, so that images of other sizes have positions too.
            rows, columns = (size // c.patch_pixels for size in images.shape[1:3])
            table = fixed_positions(rows, columns, c.width, c.positions, c.class_token)
            x = x + table[None].astype(x.dtype)
        return self.drop(constrain(x, "batch", "length", "embed"), train=train)


def prepend_class_token(
    token: Float[Array, "D"], x: Float[Array, "B P D"]
) -> Float[Array, "B L D"]:
    """Prepends the class token to each image's patches."""
    first = jnp.broadcast_to(token.astype(x.dtype)[None, None], (x.shape[0], 1, x.shape[2]))
    return jnp.concatenate([first, x], axis=1)


def check_images(shape: tuple[int, ...], config: ViTConfig) -> None:
    """Raises DataError for images whose shape does not suit the model."""
    if len(shape) != 4:
        raise DataError(
            f"images of shape {shape}: the model takes [batch, height, width, channels]"
        )
    _, height, width, channels = shape
    if channels != config.channels:
        raise DataError(f"images of {channels} channels for a model of {config.channels}")
    side, patch = config.image_size, config.patch_pixels
    if height % patch or width % patch:
        raise DataError(
            f"images of {height} x {width} pixels do not divide into patches of {patch}"
        )
    if config.positions == "learned" and (height, width) != (side, side):
        raise DataError(
            f"images of {height} x {width} pixels for a model of {side} x {side}: resize them, or "
            "load the model with its positions resized"
        )
