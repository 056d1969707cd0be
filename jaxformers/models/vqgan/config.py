"""Configuration of VQGAN (Esser et al. 2021), with the field names of its published code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, NonNegativeFloat, PositiveInt, Rate

NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class VQGANConfig(CheckedFields):
    """Shape and choices of a VQGAN; the defaults are those of the ImageNet f16 model, 16,384 codes.

    The encoder has a level for each item of `ch_mult` and halves height and width between levels:
    images `[H, W]` have `H / f x W / f` codes with f = 2^(levels - 1).
    """

    embed_dim: PositiveInt = 256
    """Width of a code's vector."""
    n_embed: PositiveInt = 16384
    """Number of codes."""
    z_channels: PositiveInt = 256
    """Channels that the encoder gives and the decoder takes."""
    resolution: PositiveInt = 256
    """Side of the square images that the model is meant for; it takes other sizes too."""
    in_channels: PositiveInt = 3
    out_ch: PositiveInt = 3
    """Channels of the decoded images."""
    ch: PositiveInt = 128
    """Channels of the first convolution; a multiple of `norm_groups`."""
    ch_mult: tuple[PositiveInt, ...] = (1, 1, 2, 2, 4)
    """Channels of each level, as multiples of `ch`."""
    num_res_blocks: PositiveInt = 2
    """Residual blocks of each level of the encoder; the decoder's levels have one more."""
    attn_resolutions: tuple[PositiveInt, ...] = (16,)
    """Sides of the feature maps that attention follows each block at, for images of `resolution`.
    The middle blocks have attention at any size."""
    dropout: Rate = 0.0
    """Before the second convolution of each residual block."""
    beta: NonNegativeFloat = 0.25
    """Weight in the quantisation loss of the term that moves the codes."""
    norm_groups: PositiveInt = 32
    """Groups of the group norms; 32 in all published models. A group of few channels loses its mean
    over the image, and so the image's colours: narrow models take few groups."""
    codebook_init: Literal["uniform", "normal"] = "uniform"
    """`uniform`: within 1 / n_embed, as published; `normal`: N(0, 1 / embed_dim), Unified-IO's."""

    def __post_init__(self):
        super().__post_init__()
        if not self.ch_mult:
            raise ConfigError("ch_mult is empty: give the channels of each level")
        if self.ch % self.norm_groups:
            raise ConfigError(
                f"ch is {self.ch}; group norm needs a multiple of {self.norm_groups} channels"
            )
        if self.resolution % self.downsampling:
            raise ConfigError(
                f"resolution {self.resolution} does not divide by {self.downsampling}, the "
                f"downsampling of {len(self.ch_mult)} levels"
            )

    @property
    def image_size(self) -> int:
        """`resolution`, by the name that image models share."""
        return self.resolution

    @property
    def channels(self) -> int:
        """`in_channels`, by the name that image models share."""
        return self.in_channels

    @property
    def downsampling(self) -> int:
        """f: side of the square of pixels that a code stands for."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def grid(self) -> int:
        """Codes along a side of an image of `resolution`."""
        return self.resolution // self.downsampling

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.ch * multiple for multiple in self.ch_mult)

    def has_attention(self, level: int) -> bool:
        """Whether attention follows the blocks of this level (0: the full resolution)."""
        return self.resolution // 2**level in self.attn_resolutions

    @staticmethod
    def f16_16384(**changes) -> VQGANConfig:
        """`vqgan_imagenet_f16_16384`, the tokenizer of Unified-IO: 76,073,859 parameters."""
        return VQGANConfig(**changes)

    @staticmethod
    def f16_1024(**changes) -> VQGANConfig:
        """`vqgan_imagenet_f16_1024`: 72,141,699 parameters."""
        return VQGANConfig(**({"n_embed": 1024} | changes))
