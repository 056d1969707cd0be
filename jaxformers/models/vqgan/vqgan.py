"""VQGAN: Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis".

An autoencoder whose latents are the nearest vectors of a codebook, so that an image is a grid of
codes. Axis letters: B batch, H and W pixels, C channels, h and w codes along height and width,
L = h w codes, row after row.
"""

from __future__ import annotations

import math

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import DataError
from jaxformers.layers import Execution
from jaxformers.models.vqgan.blocks import conv
from jaxformers.models.vqgan.coders import Decoder, Encoder
from jaxformers.models.vqgan.config import VQGANConfig
from jaxformers.models.vqgan.quantizer import Quantized, Quantizer


@flax.struct.dataclass
class VQGANOutput:
    """Reconstructed images and what training needs beside them.

    Attributes:
        images: `[B, H, W, C]`, float32.
        features: `[B, H, W, D]`, the input of the decoder's last convolution.
        quantized: the latents, replaced by the codes' vectors.
    """

    images: Array
    features: Array
    quantized: Quantized


class VQGAN(nn.Module):
    """Image tokenizer: `model.apply(variables, images)` reconstructs `[B, H, W, 3]` in -1..1.

    Esser et al., "Taming Transformers for High-Resolution Image Synthesis", 2021. `method="encode"`
    gives codes `[B, h w]`, `method="decode"` the images of codes.

    Example:
        >>> config = jf.VQGANConfig(
        ...     resolution=8, ch=8, ch_mult=(1, 1), num_res_blocks=1, attn_resolutions=(),
        ...     embed_dim=4, z_channels=4, n_embed=16, norm_groups=4,
        ... )
        >>> model, images = jf.VQGAN(config), jnp.zeros((1, 8, 8, 3))
        >>> variables = model.init(jax.random.key(0), images)
        >>> codes = model.apply(variables, images, method="encode")
        >>> codes.shape, model.apply(variables, codes, method="decode").shape
        ((1, 16), (1, 8, 8, 3))
    """

    config: VQGANConfig
    execution: Execution = Execution()

    def setup(self):
        c, execution = self.config, self.execution
        self.encoder = Encoder(c, execution)
        self.quant_conv = conv(c.z_channels, c.embed_dim, 1, execution, "quant_conv")
        self.quantizer = Quantizer(c)
        self.post_quant_conv = conv(c.embed_dim, c.z_channels, 1, execution, "post_quant_conv")
        self.decoder = Decoder(c, execution)

    def __call__(
        self, images: Float[Array, "B H W C"], *, train: bool = False
    ) -> Float[Array, "B H W C"]:
        """Reconstructed images, float32, not clipped to -1..1.

        Raises:
            DataError: images of another number of channels, or whose height or width does not
                divide by the downsampling.
        """
        return self.outputs(images, train=train).images

    def outputs(self, images: Float[Array, "B H W C"], *, train: bool = False) -> VQGANOutput:
        """Reconstructed images with codes and quantisation loss."""
        quantized = self.quantize(images, train=train)
        # [B, H, W, D]: the features of the last layer serve the discriminator's adaptive weight.
        features = self.decoder.features(self.post_quant_conv(quantized.vectors), train)
        return VQGANOutput(self._pixels(features), features, quantized)

    def quantize(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Quantized:
        """Latents, codes and quantisation loss of images.

        Raises:
            DataError: images of another number of channels, or whose height or width does not
                divide by the downsampling.
        """
        c, factor = self.config, self.config.downsampling
        if images.ndim != 4 or images.shape[3] != c.in_channels:
            raise DataError(
                f"images of shape {tuple(images.shape)}: VQGAN takes [batch, height, width, "
                f"{c.in_channels}]"
            )
        if images.shape[1] % factor or images.shape[2] % factor:
            raise DataError(
                f"images of {images.shape[1]} x {images.shape[2]} pixels: VQGAN takes heights and "
                f"widths that divide by {factor}"
            )
        # [B, H, W, C] -> latents [B, h, w, Z] -> [B, h, w, E]
        return self.quantizer(self.quant_conv(self.encoder(images, train)))

    def encode(self, images: Float[Array, "B H W C"], *, train: bool = False) -> Int[Array, "B L"]:
        """Codes from 0 to `n_embed` - 1, row after row."""
        return self.quantize(images, train=train).codes.reshape(images.shape[0], -1)

    def decode(
        self, codes: Int[Array, "B *grid"], *, train: bool = False
    ) -> Float[Array, "B H W D"]:
        """Images of codes `[B, L]`, of a square grid, or `[B, h, w]`; float32, not clipped.

        Raises:
            DataError: a number of codes that is no square.
        """
        if codes.ndim == 2:
            side = math.isqrt(codes.shape[1])
            if side * side != codes.shape[1]:
                raise DataError(
                    f"{codes.shape[1]} codes are no square grid: give codes [batch, height, width]"
                )
            codes = codes.reshape(codes.shape[0], side, side)  # [B, h, w], row after row
        features = self.decoder.features(self.post_quant_conv(self.quantizer.vectors(codes)), train)
        return self._pixels(features)

    def _pixels(self, features: Float[Array, "B H W C"]) -> Float[Array, "B H W D"]:
        return self.decoder.conv_out(features).astype(jnp.float32)
