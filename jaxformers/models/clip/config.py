"""Configurations of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023), with their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jaxformers.errors import ConfigError
from jaxformers.fields import (
    CheckedFields,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rate,
)
from jaxformers.layers import Activation, BlockConfig
from jaxformers.layers.blocks import BlockInit

LOGIT_SCALE = math.log(1 / 0.07)
"""Initial log of the logits' scale (section 2.5: a temperature of 0.07)."""
Init = Literal["openai", "xavier"]


@dataclass(frozen=True)
class CLIPImageConfig(CheckedFields):
    """A ViT as image tower; the defaults are those of CLIP ViT-B/32."""

    image_size: PositiveInt = 224
    """Side in pixels of the square images, of at least one patch. Rows and columns at the bottom
    and right that fill no patch have no effect (SigLIP so400m: 384 pixels in patches of 14)."""
    patch_size: PositiveInt = 32
    channels: PositiveInt = 3
    width: PositiveInt = 768
    heads: PositiveInt = 12
    feed_forward: PositiveInt = 3072
    layers: PositiveInt = 12
    class_token: bool = True
    pre_norm: bool = True
    """Whether a norm follows the sum of patches and positions, before the first block."""
    patch_bias: bool = False
    pooling: Literal["class", "attention"] = "class"
    """The class token, or attention of a learned query to all patches (SigLIP)."""
    projection: PositiveInt | None = 512
    """Width of the embedding; None: the pooled vector itself."""
    activation: Activation = "quick_gelu"
    norm_epsilon: PositiveFloat = 1e-5
    patch_dropout: Rate = 0.0
    """Share of the patches left out in training (Li et al. 2022, FLIP)."""
    init: Init = "openai"
    """`openai`: PyTorch's defaults, as OpenAI's image tower; `xavier`: big_vision's."""

    def __post_init__(self):
        super().__post_init__()
        if self.image_size < self.patch_size:
            raise ConfigError(
                f"images of {self.image_size} pixels hold no patch of {self.patch_size}: choose "
                "a larger image_size"
            )
        if self.pooling == "class" and not self.class_token:
            raise ConfigError("pooling 'class' needs the class token: choose pooling 'attention'")
        self.block  # noqa: B018  (validates it here)

    @property
    def grid(self) -> int:
        """Number of patches along a side of the image."""
        return self.image_size // self.patch_size

    @property
    def patched_size(self) -> int:
        """Side in pixels of the square that the patches cover, from the upper left corner."""
        return self.grid * self.patch_size

    @property
    def tokens(self) -> int:
        """Number of tokens of an image, including the class token if there is one."""
        return self.grid**2 + self.class_token

    @property
    def embedding(self) -> int:
        """E: width of the image's embedding."""
        return self.projection or self.width

    @property
    def block(self) -> BlockConfig:
        """Configuration of the encoder's blocks: pre-norm."""
        # PyTorch's defaults: nn.MultiheadAttention draws its [3 D, D] input projection by Xavier;
        # every other linear layer is U(-fan_in^-0.5, fan_in^-0.5), feed-forward biases too.
        uniform: Literal["fan_in_uniform"] = "fan_in_uniform"
        torch = BlockInit("xavier_qkv", uniform, uniform, uniform, uniform)
        return _block(self, torch if self.init == "openai" else "xavier")


@dataclass(frozen=True)
class ModifiedResNetConfig(CheckedFields):
    """CLIP's ResNet as image tower (section 2.4); the defaults are those of RN50."""

    image_size: PositiveInt = 224
    """Side in pixels of the square images, a multiple of 32."""
    channels: PositiveInt = 3
    depths: tuple[PositiveInt, ...] = (3, 4, 6, 3)
    """Number of blocks of each stage."""
    width: PositiveInt = 64
    """Output channels of the stem; stages have 4 times as many, doubled from stage to stage."""
    heads: PositiveInt = 32
    """Heads of the attention that pools the last feature map."""
    projection: PositiveInt = 1024
    """Width of the embedding."""
    norm_epsilon: PositiveFloat = 1e-5
    norm_momentum: Rate = 0.9
    """Weight of the old running statistics at each step (1 minus PyTorch's `momentum`)."""

    def __post_init__(self):
        super().__post_init__()
        if len(self.depths) != 4:
            raise ConfigError(f"depths {self.depths}: a CLIP ResNet has four stages")
        if self.width % 2:
            raise ConfigError(f"a width of {self.width} is odd: the stem has half as many channels")
        if self.image_size % 32:
            raise ConfigError(f"an image_size of {self.image_size} is not a multiple of 32")
        if self.features % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide {self.features} channels")

    @property
    def features(self) -> int:
        """Channels of the last feature map."""
        # 4 x 2^3: bottlenecks widen by 4, and each of three stages doubles.
        return 32 * self.width

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(4 * self.width * 2**i for i in range(4))

    @property
    def grid(self) -> int:
        """Side of the last feature map in its own pixels."""
        return self.image_size // 32

    @property
    def embedding(self) -> int:
        """E: width of the image's embedding."""
        return self.projection


@dataclass(frozen=True)
class CLIPTextConfig(CheckedFields):
    """The text tower; the defaults are those of CLIP ViT-B/32."""

    vocab_size: PositiveInt = 49408
    context_length: PositiveInt = 77
    """Number of positions: the longest text in tokens, start and end included."""
    width: PositiveInt = 512
    heads: PositiveInt = 8
    feed_forward: PositiveInt = 2048
    layers: PositiveInt = 12
    causal: bool = True
    pooling: Literal["eos", "highest_id", "last"] = "highest_id"
    """Token whose encoding is the text's: the first `eos_id`, the highest id (OpenAI; its end of
    text is the last of the vocabulary), or the last position (SigLIP)."""
    eos_id: NonNegativeInt = 49407
    projection: PositiveInt | None = 512
    """Width of the embedding; None: the pooled vector itself."""
    projection_bias: bool = False
    activation: Activation = "quick_gelu"
    norm_epsilon: PositiveFloat = 1e-5
    init: Init = "openai"
    """`openai`: the deviations of OpenAI's text tower; `xavier`: big_vision's."""

    def __post_init__(self):
        super().__post_init__()
        # A lookup beyond the table gives NaN, and pooling at it would give position 0.
        if self.eos_id >= self.vocab_size:
            raise ConfigError(f"eos_id {self.eos_id} is not in a vocabulary of {self.vocab_size}")
        self.block  # noqa: B018  (validates it here)

    @property
    def embedding(self) -> int:
        """E: width of the text's embedding."""
        return self.projection or self.width

    @property
    def block(self) -> BlockConfig:
        """Configuration of the encoder's blocks: pre-norm."""
        # OpenAI's deviations: D^-0.5 for query, key and value, (2 D)^-0.5 for the feed-forward
        # layer's first kernel, and D^-0.5 (2 layers)^-0.5 for what is added to the residual stream.
        residual = (2 * self.width * self.layers) ** -0.5
        query, up = self.width**-0.5, (2 * self.width) ** -0.5
        openai = BlockInit(query, residual, up, residual, "fan_in_uniform")
        return _block(self, openai if self.init == "openai" else "xavier")


ImageTowerConfig = CLIPImageConfig | ModifiedResNetConfig


@dataclass(frozen=True)
class CLIPConfig(CheckedFields):
    """Both towers and the scale of the logits; the defaults are those of CLIP ViT-B/32."""

    image: ImageTowerConfig = field(default_factory=CLIPImageConfig)
    text: CLIPTextConfig = field(default_factory=CLIPTextConfig)
    logit_scale: FiniteFloat = LOGIT_SCALE
    """Initial log of the factor of the cosines."""
    logit_bias: FiniteFloat | None = None
    """Initial bias of the logits (SigLIP: -10); None: no bias."""

    def __post_init__(self):
        super().__post_init__()
        # Cosines need both towers in one space.
        if self.image.embedding != self.text.embedding:
            raise ConfigError(
                f"the image tower embeds in {self.image.embedding} dimensions and the text tower "
                f"in {self.text.embedding}: set the same projection"
            )

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        return self.image.image_size

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.image.channels

    @property
    def vocab_size(self) -> int:
        """Rows of the text tower's token embedding."""
        return self.text.vocab_size

    @staticmethod
    def vit_b32(**changes) -> CLIPConfig:
        """ViT-B/32: 151,277,313 parameters; `changes` set fields of this class."""
        return replace(CLIPConfig(), **changes)

    @staticmethod
    def vit_b16(**changes) -> CLIPConfig:
        """ViT-B/16: 149,620,737 parameters."""
        return replace(CLIPConfig(image=CLIPImageConfig(patch_size=16)), **changes)

    @staticmethod
    def vit_l14(image_size: int = 224, **changes) -> CLIPConfig:
        """ViT-L/14: 427,616,513 parameters; at 336 pixels 427,944,193."""
        image = CLIPImageConfig(
            image_size=image_size,
            patch_size=14,
            width=1024,
            heads=16,
            feed_forward=4096,
            layers=24,
            projection=768,
        )
        return replace(CLIPConfig(image, _text(768, 12, 768)), **changes)

    @staticmethod
    def vit_l14_336(**changes) -> CLIPConfig:
        """ViT-L/14 at 336 pixels: 427,944,193 parameters."""
        return CLIPConfig.vit_l14(336, **changes)

    @staticmethod
    def rn50(**changes) -> CLIPConfig:
        """RN50: 102,007,137 parameters."""
        return replace(CLIPConfig(ModifiedResNetConfig(), _text(512, 8, 1024)), **changes)

    @staticmethod
    def rn101(**changes) -> CLIPConfig:
        """RN101: 119,688,033 parameters."""
        image = ModifiedResNetConfig(depths=(3, 4, 23, 3), projection=512)
        return replace(CLIPConfig(image, _text(512, 8, 512)), **changes)

    @staticmethod
    def rn50x4(**changes) -> CLIPConfig:
        """RN50x4 at 288 pixels: 178,300,601 parameters."""
        image = ModifiedResNetConfig(288, 3, (4, 6, 10, 6), 80, 40, 640)
        return replace(CLIPConfig(image, _text(640, 10, 640)), **changes)

    @staticmethod
    def rn50x16(**changes) -> CLIPConfig:
        """RN50x16 at 384 pixels: 290,979,217 parameters."""
        image = ModifiedResNetConfig(384, 3, (6, 8, 18, 8), 96, 48, 768)
        return replace(CLIPConfig(image, _text(768, 12, 768)), **changes)

    @staticmethod
    def rn50x64(**changes) -> CLIPConfig:
        """RN50x64 at 448 pixels: 623,258,305 parameters."""
        image = ModifiedResNetConfig(448, 3, (3, 15, 36, 10), 128, 64, 1024)
        return replace(CLIPConfig(image, _text(1024, 16, 1024)), **changes)

    @staticmethod
    def siglip_b16(image_size: int = 224, **changes) -> CLIPConfig:
        """SigLIP B/16: sigmoid loss, attention pooling, text pooled at its last position."""
        common: dict[str, Any] = dict(activation="gelu_tanh", norm_epsilon=1e-6, init="xavier")
        image = CLIPImageConfig(
            image_size=image_size,
            patch_size=16,
            class_token=False,
            pre_norm=False,
            patch_bias=True,
            pooling="attention",
            projection=None,
            **common,
        )
        text = CLIPTextConfig(
            vocab_size=32000,
            context_length=64,
            width=768,
            heads=12,
            feed_forward=3072,
            causal=False,
            pooling="last",
            eos_id=1,
            projection=768,
            projection_bias=True,
            **common,
        )
        start = dict(logit_scale=math.log(10.0), logit_bias=-10.0)
        return replace(CLIPConfig(image, text, **start), **changes)


def _text(width: int, heads: int, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(width=width, heads=heads, feed_forward=4 * width, projection=projection)


def _block(config: CLIPImageConfig | CLIPTextConfig, init) -> BlockConfig:
    return BlockConfig(
        width=config.width,
        heads=config.heads,
        feed_forward=config.feed_forward,
        activation=config.activation,
        norm_position="pre",
        norm_epsilon=config.norm_epsilon,
        init=init,
    )
