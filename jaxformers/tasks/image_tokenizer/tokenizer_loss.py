"""VQGAN's losses (Esser et al. 2021, section 3.1, and the published code).

The autoencoder minimises L1 + perceptual + quantisation + weight * generator loss, the
discriminator the hinge loss. Both are one sum: each term's gradient reaches the parameters of its
own network alone.

Axis letters: B batch, H and W height and width, C channels, h and w codes along height and width,
V codes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxformers.arrays import Array
from jaxformers.fields import CheckedFields, NonNegativeFloat, NonNegativeInt, PositiveFloat
from jaxformers.layers.convolution import convolve
from jaxformers.models.vqgan.adversarial import DISCRIMINATOR, AdversarialVQGAN
from jaxformers.models.vqgan.vqgan import VQGANOutput
from jaxformers.tasks.image_tokenizer.perceptual import ImageGradients, Perceptual

Variables = dict[str, Any]
stop = jax.lax.stop_gradient


@dataclass(frozen=True)
class VQGANLoss(CheckedFields):
    """Weights of VQGAN's losses; the defaults are the published ones."""

    perceptual: Perceptual = ImageGradients()
    perceptual_weight: NonNegativeFloat = 1.0
    codebook_weight: NonNegativeFloat = 1.0
    """Of the quantisation loss."""
    discriminator_weight: NonNegativeFloat = 0.8
    """Of the generator loss, times the adaptive weight."""
    discriminator_start: NonNegativeInt = 250_001
    """Steps before the discriminator is trained and counts."""
    entropy_weight: NonNegativeFloat = 0.0
    """Of a term that spreads the latents over all codes (Yu et al. 2023, "Language Model Beats
    Diffusion", equation 5); 0: none, as published."""
    entropy_temperature: PositiveFloat = 0.01
    """Of the distances' softmax in that term."""


def reconstruction_losses(
    loss: VQGANLoss, variables: Variables, images: Array, reconstructed: Array
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Mean absolute error and perceptual distance of each image."""
    absolute = jnp.abs(images - reconstructed).mean((1, 2, 3))
    if not loss.perceptual_weight:
        return absolute, jnp.zeros_like(absolute)
    return absolute, loss.perceptual.distance(variables, images, reconstructed)


def hinge_loss(real: Float[Array, "B h w 1"], fake: Float[Array, "B h w 1"]) -> Float[Array, ""]:
    """The discriminator's: the mean of relu(1 - real) and relu(1 + fake), halved."""
    return 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean())


def adaptive_weight(
    outputs: VQGANOutput,
    last_layer: dict[str, Array],
    reconstruction_loss: Callable[[Array], Array],
    generator_loss: Callable[[Array], Array],
    model: AdversarialVQGAN,
) -> Float[Array, ""]:
    """Norm of the reconstruction loss's gradient over that of the generator loss (equation 7).

    Both gradients are by the kernel of the decoder's last convolution; at most 10,000.

    Args:
        outputs: of the autoencoder.
        last_layer: `kernel` and `bias` of the decoder's last convolution.
        reconstruction_loss, generator_loss: scalars, functions of reconstructed images.
        model: for the type and platform that it computes with.
    """
    features = stop(outputs.features)
    bias = stop(last_layer["bias"]).reshape(1, 1, 1, -1)

    def gradient_norm(loss: Callable[[Array], Array]) -> Array:
        def of_kernel(kernel: Array) -> Array:
            kernel = kernel.astype(features.dtype)
            pixels = convolve(features, kernel, execution=model.execution)
            return loss(pixels.astype(jnp.float32) + bias)

        return jnp.sqrt(jnp.square(jax.grad(of_kernel)(stop(last_layer["kernel"]))).sum())

    weight = gradient_norm(reconstruction_loss) / (gradient_norm(generator_loss) + 1e-4)
    return stop(jnp.clip(weight, 0.0, 1e4))


def codebook_entropy_loss(
    distances: Float[Array, "B h w V"], temperature: float
) -> Float[Array, ""]:
    """Mean entropy of each latent's softmax over the codes, less the entropy of their mean."""
    log_shares = jax.nn.log_softmax(-distances / temperature)  # [B, h, w, V]
    shares = jnp.exp(log_shares)
    mean = shares.mean((0, 1, 2))
    entropy_of_mean = -(mean * jnp.log(mean + 1e-12)).sum()
    return -(shares * log_shares).sum(-1).mean() - entropy_of_mean


def discriminate(
    model: AdversarialVQGAN, variables: Variables, images: Array, *, frozen: bool, train: bool
) -> tuple[Array, Variables]:
    """The discriminator's logits, and the collections that it changed.

    Args:
        frozen: whether its parameters get no gradient, as in the loss of the autoencoder.
    """
    params = variables["params"]
    if frozen:
        params = {**params, DISCRIMINATOR: stop(params[DISCRIMINATOR])}
    mutable = ["batch_stats"] if train else []
    return model.apply(
        {**variables, "params": params}, images, method="discriminate", train=train, mutable=mutable
    )
