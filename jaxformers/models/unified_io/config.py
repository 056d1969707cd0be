"""Configuration of Unified-IO (Lu et al. 2022), with its four sizes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxformers.errors import ConfigError
from jaxformers.fields import CheckedFields, PositiveFloat, PositiveInt, Rate
from jaxformers.layers import BlockConfig
from jaxformers.layers.blocks import BlockInit
from jaxformers.models.vqgan import VQGANConfig


@dataclass(frozen=True)
class UnifiedIOConfig(CheckedFields):
    """Shape of a Unified-IO network; the defaults are those of the small model."""

    vocab_size: PositiveInt = 33_152
    """V: text tokens, locations among them; the ids of image codes follow, from V on."""
    image_vocab_size: PositiveInt = 16_384
    """K: codes of the image tokenizer."""
    width: PositiveInt = 512
    heads: PositiveInt = 6
    head_width: PositiveInt = 64
    """Width of a head, whatever `width` and `heads` are."""
    feed_forward: PositiveInt = 1024
    encoder_layers: PositiveInt = 8
    decoder_layers: PositiveInt = 8
    dropout: Rate = 0.0
    """On embeddings, each sub-layer's output and inside attention and feed-forward."""
    norm_epsilon: PositiveFloat = 1e-6
    segments: PositiveInt = 2
    """Rows of the segment tables: 0 is text, 1 image; the largest model stores 8."""
    patch_size: PositiveInt = 16
    channels: PositiveInt = 3
    image_rows: PositiveInt = 384
    image_columns: PositiveInt = 384
    """Pixels of an input image, which flat patches are taken to be cut from."""
    encoder_text_length: PositiveInt = 256
    """Positions of the encoder's text."""
    encoder_image_length: PositiveInt = 576
    """Positions of the encoder's patches."""
    decoder_text_length: PositiveInt = 256
    decoder_image_length: PositiveInt = 256
    """Positions of the decoder's image codes."""
    image_tokenizer: VQGANConfig | None = None
    """The VQGAN inside the model, whose codes it reads and writes; None: none, codes only."""

    def __post_init__(self):
        super().__post_init__()
        if self.segments < 2:
            raise ConfigError(f"segments={self.segments}: text and image need two")
        if self.image_rows % self.patch_size or self.image_columns % self.patch_size:
            raise ConfigError(
                f"images of {self.image_rows} x {self.image_columns} pixels do not divide into "
                f"patches of {self.patch_size}"
            )
        tokenizer = self.image_tokenizer
        if tokenizer is not None and tokenizer.n_embed > self.image_vocab_size:
            raise ConfigError(
                f"an image tokenizer of n_embed={tokenizer.n_embed} codes for "
                f"image_vocab_size={self.image_vocab_size}: give the model as many"
            )
        self.block  # noqa: B018  (validates it here)

    @staticmethod
    def small(**changes) -> UnifiedIOConfig:
        """71,693,184 parameters, and 76,073,859 of the published `VQGANConfig`."""
        return UnifiedIOConfig(**changes)

    @staticmethod
    def base(**changes) -> UnifiedIOConfig:
        """241,446,912 parameters, and 76,073,859 of the published `VQGANConfig`."""
        return _sized(768, 12, 2048, 12, **changes)

    @staticmethod
    def large(**changes) -> UnifiedIOConfig:
        """776,548,352 parameters, and 76,073,859 of the published `VQGANConfig`."""
        return _sized(1024, 16, 2816, 24, **changes)

    @staticmethod
    def xl(**changes) -> UnifiedIOConfig:
        """2,849,161,216 parameters, and 76,073,859 of the published `VQGANConfig`."""
        return _sized(2048, 32, 5120, 24, **(dict(segments=8) | changes))

    @property
    def image_start_id(self) -> int:
        """V - 1, the decoder input before the first image code; text starts with 0."""
        return self.vocab_size - 1

    @property
    def numbers_per_patch(self) -> int:
        """E: numbers of a flat patch, in the order row, column, channel."""
        return self.patch_size**2 * self.channels

    @property
    def block(self) -> BlockConfig:
        """Configuration of the blocks: T5.1.1's, pre-norm without biases."""
        # Normals of variance 1 / inputs, as in T5; the queries' also carries the 1 / sqrt(K) by
        # which attention does not divide.
        inputs = float(self.width**-0.5)
        init = BlockInit(
            query_key_value=inputs,
            out=float((self.heads * self.head_width) ** -0.5),
            up="lecun",
            down="lecun",
            query=inputs * self.head_width**-0.5,
        )
        return BlockConfig(
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            head_width=self.head_width,
            activation="gelu_tanh",
            gated=True,
            norm="rms",
            norm_position="pre",
            norm_epsilon=self.norm_epsilon,
            attention_bias=False,
            feed_forward_bias=False,
            attention_scale=1.0,
            dropout=self.dropout,
            attention_dropout=self.dropout,
            activation_dropout=self.dropout,
            init=init,
        )


def _sized(width: int, heads: int, feed_forward: int, layers: int, **changes) -> UnifiedIOConfig:
    size = dict(width=width, heads=heads, feed_forward=feed_forward)
    size |= dict(encoder_layers=layers, decoder_layers=layers)
    return UnifiedIOConfig(**(size | changes))
