"""Images as grids of codes: training of a VQGAN (Esser et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxformers.errors import ConfigError
from jaxformers.fields import PositiveInt
from jaxformers.layers import Execution
from jaxformers.models import VQGAN, PatchDiscriminatorConfig, VQGANConfig
from jaxformers.models.vqgan.adversarial import DISCRIMINATOR, AdversarialVQGAN
from jaxformers.models.vqgan.vqgan import VQGANOutput
from jaxformers.pretrained import load_pretrained, registry
from jaxformers.pretrained.image_backbone import all_variables
from jaxformers.sharding import batch_multiple
from jaxformers.tasks.base import Loss, Variables
from jaxformers.tasks.image_tokenizer.perceptual import ImageGradients
from jaxformers.tasks.image_tokenizer.tokenizer_evaluation import ImageTokenizerEvaluator
from jaxformers.tasks.image_tokenizer.tokenizer_loss import (
    VQGANLoss,
    adaptive_weight,
    codebook_entropy_loss,
    discriminate,
    hinge_loss,
    reconstruction_losses,
)
from jaxformers.tasks.images.image_data import (
    picture_shape,
    rehearsed,
)
from jaxformers.tasks.images.unlabelled_images import UnlabelledImages

# Pixels 0..255 become -1..1, what the published weights were trained on.
CENTRE = 0.5


@dataclass(frozen=True)
class ImageTokenizer(UnlabelledImages):
    """Learns to write an image as codes and to paint it from them; labels are not looked at.

    The discriminator and the autoencoder take one step each from the same batch, with the
    experiment's optimizer and schedule.
    """

    model: VQGANConfig
    rows: PositiveInt = 12
    """Images in a batch."""
    loss_weights: VQGANLoss = VQGANLoss()
    discriminator: PatchDiscriminatorConfig | None = PatchDiscriminatorConfig()
    """None: trained without one."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("mean", "std"):
            if set(getattr(self.preprocessing, name)) != {CENTRE}:
                raise ConfigError(
                    f"the preprocessing's {name} is {getattr(self.preprocessing, name)}: VQGAN's "
                    f"pixels are in -1..1, set --task.preprocessing.{name} to 0.5"
                )
        if self.model.out_ch != self.model.in_channels:
            raise ConfigError(
                f"the model reads {self.model.in_channels} channels and paints "
                f"{self.model.out_ch}: set --task.model.out-ch {self.model.in_channels}"
            )
        if self.discriminator and self.discriminator.channels != self.model.out_ch:
            raise ConfigError(
                f"the discriminator reads {self.discriminator.channels} channels and the model "
                f"paints {self.model.out_ch}: set --task.discriminator.channels "
                f"{self.model.out_ch}"
            )

    @property
    def best(self) -> str:
        """PSNR on the development set, where there is one."""
        return "dev_psnr" if self.dev_data else ""

    def module(self, execution: Execution) -> AdversarialVQGAN:
        """The network and its discriminator."""
        return AdversarialVQGAN(self.model, execution, self.discriminator)

    def init(self, model: AdversarialVQGAN, key: jax.Array) -> Variables:
        """Fresh variables."""
        images = jnp.zeros(picture_shape(self.model, batch_multiple()))
        return {
            **model.init(key, images, method="initialise"),
            **self.loss_weights.perceptual.init(),
        }

    def pretrained(self, model: AdversarialVQGAN) -> Variables:
        """The autoencoder of `weights`, and the perceptual distance's weights."""
        variables = self.loss_weights.perceptual.load()
        if self.weights is not None:
            loaded = load_pretrained(self.weights, model.execution)
            plain = VQGAN(self.model, model.execution)
            variables |= all_variables(loaded, plain, self.weights)
        return variables

    def inference_model(
        self, model: nn.Module, variables: Variables
    ) -> tuple[nn.Module, Variables]:
        """The autoencoder alone."""
        params = {k: v for k, v in variables["params"].items() if k != DISCRIMINATOR}
        return VQGAN(model.config, model.execution), {"params": params}

    def loss(
        self,
        model: AdversarialVQGAN,
        variables: Variables,
        batch,
        *,
        train: bool = False,
        rngs=None,
    ) -> Loss:
        """The autoencoder's loss plus the discriminator's."""
        images, weights = batch["images"], self.loss_weights
        outputs = model.apply(variables, images, method="outputs", train=train, rngs=rngs)
        absolute, perceptual = reconstruction_losses(weights, variables, images, outputs.images)
        reconstruction = absolute + weights.perceptual_weight * perceptual
        metrics = {
            "l1": absolute.mean(),
            "perceptual": perceptual.mean(),
            "quantization": outputs.quantized.loss.mean(),
            "codes_used": _share_of_codes(outputs.quantized.codes, self.model.n_embed),
        }
        total = reconstruction.mean() + weights.codebook_weight * metrics["quantization"]
        if weights.entropy_weight:
            distances = outputs.quantized.distances
            entropy = codebook_entropy_loss(distances, weights.entropy_temperature)
            total = total + weights.entropy_weight * entropy
            metrics["codebook_entropy"] = entropy
        model_state = {}
        if self.discriminator is not None:
            adversarial, more_metrics, model_state = self._adversarial_loss(
                model, variables, images, outputs, train
            )
            total, metrics = total + adversarial, metrics | more_metrics
        if train:
            model_state["progress"] = {"steps": variables["progress"]["steps"] + 1}
        # The adaptive weight and batch norm depend on all rows, so chunks do not add up.
        count = jnp.asarray(images.shape[0], jnp.float32)
        sums = {name: value * count for name, value in metrics.items()}
        additive = self.discriminator is None and not weights.entropy_weight
        return Loss(total * count, count, sums, model_state, additive)

    def _adversarial_loss(
        self,
        model: AdversarialVQGAN,
        variables: Variables,
        images: jax.Array,
        outputs: VQGANOutput,
        train: bool,
    ) -> tuple[jax.Array, dict[str, jax.Array], Variables]:
        """Generator loss plus discriminator loss, metrics, and the batch norms' statistics."""
        weights, painted = self.loss_weights, outputs.images

        def generator_loss(pixels: jax.Array) -> jax.Array:
            return -discriminate(model, variables, pixels, frozen=True, train=train)[0].mean()

        def reconstruction_loss(pixels: jax.Array) -> jax.Array:
            absolute, perceptual = reconstruction_losses(weights, variables, images, pixels)
            return (absolute + weights.perceptual_weight * perceptual).mean()

        last_layer = variables["params"]["decoder"]["conv_out"]
        adaptive = adaptive_weight(outputs, last_layer, reconstruction_loss, generator_loss, model)
        real, state = discriminate(model, variables, images, frozen=False, train=train)
        detached = jax.lax.stop_gradient(painted)
        fake, state = discriminate(
            model, {**variables, **state}, detached, frozen=False, train=train
        )
        active = (variables["progress"]["steps"] >= weights.discriminator_start).astype(jnp.float32)
        generator, discriminator = generator_loss(painted), active * hinge_loss(real, fake)
        total = active * weights.discriminator_weight * adaptive * generator + discriminator
        metrics = {
            "generator": generator,
            "discriminator": discriminator,
            "adaptive_weight": adaptive,
            "logits_real": real.mean(),
            "logits_fake": fake.mean(),
        }
        return total, metrics, dict(state)

    def probe(self, model: AdversarialVQGAN, variables: Variables, batch) -> dict[str, jax.Array]:
        """Reconstructed images and the loss."""
        prepared = self.prepare(batch)
        loss = self.loss(model, variables, prepared)
        reconstructed = model.apply(variables, prepared["images"])
        return {"reconstruction": reconstructed, "loss": loss.total / loss.weight}

    def shared_sizes(self) -> set[int]:
        """That of the codebook: the uses of its codes are counted over all rows."""
        return {self.model.n_embed}

    def evaluators(self) -> tuple[ImageTokenizerEvaluator]:
        """Reconstruction of the development set."""
        return (
            ImageTokenizerEvaluator(
                dev=self.dev_data, preprocessing=self.preprocessing, rows=self.rows
            ),
        )

    def rehearsal(self) -> ImageTokenizer:
        """A few thousand parameters and some dozens of bundled images."""
        model = registry.shrink(self.model)
        discriminator = None
        if self.discriminator is not None:
            discriminator = replace(self.discriminator, width=8, layers=1)
        loss_weights = replace(
            self.loss_weights, perceptual=ImageGradients(1), discriminator_start=2
        )
        return replace(
            self,
            model=model,
            discriminator=discriminator,
            loss_weights=loss_weights,
            **rehearsed(self, model.resolution),
        )


def _share_of_codes(codes: jax.Array, num_codes: int) -> jax.Array:
    """Share of the codes that occur."""
    counts = jnp.zeros(num_codes, jnp.int32).at[codes.reshape(-1)].add(1)
    return (counts > 0).mean()
