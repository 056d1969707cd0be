"""Shape and choices of a ViT, with its named sizes; the module is in `vit.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from jaxformers.arrays import ImageSize, height_width, one_spelling
from jaxformers.errors import ConfigError
from jaxformers.fields import (
    CheckedFields,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rate,
)
from jaxformers.layers import (
    Activation,
    BlockConfig,
)
from jaxformers.layers.position_resize import PositionResize
from jaxformers.models.hybrid_stem import HybridStemConfig
from jaxformers.models.patches import (
    Pooling,
    Positions,
    pixels_text,
)
from jaxformers.models.problem_type import ProblemType

SIZES = {  # width, layers, heads (table 1; tiny and small are of Touvron et al. 2021)
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


@dataclass(frozen=True)
class ViTConfig(CheckedFields):
    """Shape and choices of a ViT; the defaults are ViT-B/16 at 224 pixels, Google's.

    `activation`: Google's models use the tanh approximation of GELU (`gelu_tanh`), those of Hugging
    Face, timm and MAE the exact one (`gelu`).
    """

    image_size: ImageSize = 224
    """Side in pixels of square images, or (height, width): multiples of `patch_pixels`."""
    patch_size: PositiveInt = 16
    """Side of a patch in pixels; with a stem, in pixels of the stem's feature map."""
    channels: PositiveInt = 3
    width: PositiveInt = 768
    heads: PositiveInt = 12
    feed_forward: PositiveInt = 3072
    layers: PositiveInt = 12
    class_token: bool = True
    distillation_token: bool = False
    """A second token beside the class token (DeiT)."""
    distillation_head: bool = False
    """A head of its own for that token; the logits are the mean of both heads'."""
    register_tokens: NonNegativeInt = 0
    """Learned tokens between the class token and the patches that no head reads."""
    pooling: Pooling = "class"
    """Input of the head: the class token; of the patch tokens the mean, the maximum, or the mean of
    both; class token and mean side by side (DINOv2); or a learned query's attention to them."""
    positions: Positions = "learned"
    """A learned table, or fixed 2D sinusoids, big_vision's or MAE's."""
    prefix_positions: Literal["all", "class", "none"] = "all"
    """Which of the tokens before the patches have rows in the table of positions."""
    position_resize: PositionResize = "zoom"
    """How the publisher resizes the table for images of another size; see `PositionResize`."""
    dynamic_size: bool = False
    """Takes images of other sizes than `image_size` too, their positions resized at each call."""
    embedding_norm: bool = False
    """Norms the embedded tokens; the projection of patches then has no bias (CLIP)."""
    pre_logits: PositiveInt | None = None
    """Width of the tanh layer before the head (section 3.1, for pre-training); None: no layer."""
    final_norm: bool = True
    """False leaves out the norm after the blocks (RADIO)."""
    head_norm: bool = False
    """Moves the final norm from the encoder's end to after pooling (MAE's fine-tuning)."""
    head_batch_norm: bool = False
    """Adds a batch norm without scale or bias before the head (MAE's linear probe)."""
    classes: NonNegativeInt = 1000
    """Outputs of the head; 0: no head."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, in order; empty: numbers."""
    problem_type: ProblemType | None = None
    """What the logits mean, as `class_scores` has it; None: a softmax, of one class a sigmoid."""
    head_bias: FiniteFloat = 0.0
    """Initial value of the head's bias, such as -10 for the sigmoid loss over 21,843 classes."""
    activation: Activation = "gelu_tanh"
    norm_epsilon: PositiveFloat = 1e-6
    attention_bias: bool = True
    """Biases of query, key, value and output projection."""
    qkv_bias: bool = True
    """False leaves out those of query, key and value alone."""
    query_key_norm: bool = False
    """Norms each head's queries and keys before their product."""
    gated: bool = False
    """Feed-forward of act(x W_gate) * (x W_up), SwiGLU with activation "silu"."""
    layer_scale: PositiveFloat | None = None
    """Initial value of a learned factor for each channel of a sub-layer's output; None: none."""
    dropout: Rate = 0.0
    """After each dense layer except query, key and value, and after adding positions."""
    attention_dropout: Rate = 0.0
    drop_path: Rate = 0.0
    """Stochastic depth: rate at which an example skips a sub-layer of the last block; rates grow
    linearly from 0 at the first block."""
    stem: HybridStemConfig | None = None
    """The ResNet whose feature map is split into patches ("hybrid", section 3.1); None: none."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "image_size", one_spelling(self.image_size))
        if any(side % self.patch_pixels for side in self.image_shape):
            raise ConfigError(
                f"images of {pixels_text(self.image_shape)} pixels do not divide into patches of "
                f"{self.patch_pixels}: choose a multiple of {self.patch_pixels}"
            )
        self._check_tokens()
        if self.positions.startswith("sincos2d") and self.width % 4:
            raise ConfigError(f"positions of sines need a width divisible by 4, not {self.width}")
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigError(
                f"class_names has {len(self.class_names)} names for {self.classes} classes"
            )
        self.block  # noqa: B018  (validates it here)

    def _check_tokens(self) -> None:
        """Raises ConfigError unless head and tokens suit each other."""
        if self.register_tokens < 0:
            raise ConfigError(f"register_tokens {self.register_tokens} must be 0 or more")
        if self.pooling in ("class", "class_average") and not self.class_token:
            raise ConfigError(
                f"pooling {self.pooling!r} needs the class token: choose pooling 'average'"
            )
        if self.head_norm and not self.final_norm:
            raise ConfigError("head_norm moves the final norm: it needs final_norm")
        plain = not (self.head_norm or self.pre_logits or self.head_batch_norm)
        if self.distillation_head and not (
            self.distillation_token and self.pooling == "class" and plain
        ):
            raise ConfigError(
                "distillation_head needs distillation_token and pooling 'class', and neither "
                "head_norm, head_batch_norm nor pre_logits"
            )

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
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the input images in pixels."""
        return height_width(self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_shape
        return height // self.patch_pixels, width // self.patch_pixels

    @property
    def num_patches(self) -> int:
        """P: patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def prefix_tokens(self) -> int:
        """T: tokens before the patches."""
        return self.class_token + self.distillation_token + self.register_tokens

    @property
    def prefix_rows(self) -> int:
        """Rows before the patches' in a learned table of positions."""
        rows = {"all": self.prefix_tokens, "class": int(self.class_token), "none": 0}
        return rows[self.prefix_positions]

    @property
    def tokens(self) -> int:
        """L: tokens of an image, prefix tokens included."""
        return self.prefix_tokens + self.num_patches

    @property
    def pooled_width(self) -> int:
        """Width of the pooled representation before `pre_logits`."""
        return self.width * (2 if self.pooling == "class_average" else 1)

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
            qkv_bias=self.qkv_bias,
            query_key_norm=self.query_key_norm,
            gated=self.gated,
            layer_scale=self.layer_scale,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            activation_dropout=self.dropout,
            drop_path=self.drop_path,
        )

    @property
    def pooling_block(self) -> BlockConfig:
        """Configuration of attention pooling: the blocks' widths and activation, all biases."""
        return replace(
            self.block, qkv_bias=True, query_key_norm=False, gated=False, layer_scale=None
        )
