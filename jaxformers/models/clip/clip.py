"""CLIP: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision".

Two towers embed images and texts in one space; the logit of an image and a text is their cosine
times a learned scale (figure 3). SigLIP (Zhai et al. 2023) adds a bias and trains with a sigmoid
loss. What the papers leave open follows OpenAI's and Google's released code.

Axis letters: I images, T texts, L tokens, H and W height and width, C channels, E embedding.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.layers import Execution
from jaxformers.models.clip.config import CLIPConfig, CLIPImageConfig
from jaxformers.models.clip.image_tower import CLIPImageTower
from jaxformers.models.clip.modified_resnet import ModifiedResNet
from jaxformers.models.clip.outputs import CLIPOutput, normalise
from jaxformers.models.clip.text_tower import CLIPTextTower


class CLIP(nn.Module):
    """CLIP or SigLIP: `model.apply(variables, images, input_ids)`.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021;
    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. `method="encode_image"` and
    `method="encode_text"` give projected vectors that are not normalised.

    Example:
        >>> from jaxformers import models
        >>> tower = dict(width=16, heads=2, feed_forward=32, layers=1, projection=8)
        >>> image = models.CLIPImageConfig(image_size=8, patch_size=4, **tower)
        >>> text = models.CLIPTextConfig(vocab_size=50, context_length=6, eos_id=49, **tower)
        >>> model = jf.CLIP(jf.CLIPConfig(image=image, text=text))
        >>> images, input_ids = jnp.zeros((2, 8, 8, 3)), jnp.array([[48, 5, 49, 0, 0, 0]])
        >>> variables = model.init(jax.random.key(0), images, input_ids)
        >>> model.apply(variables, images, input_ids).logits_per_image.shape
        (2, 1)
    """

    config: CLIPConfig
    execution: Execution = Execution()

    def setup(self):
        c = self.config
        tower = CLIPImageTower if isinstance(c.image, CLIPImageConfig) else ModifiedResNet
        self.image = tower(c.image, self.execution)
        self.text = CLIPTextTower(c.text, self.execution)
        # The log of the scale is learned, so that it stays positive (section 2.5 clips it at ln 100
        # in training, which is the optimizer's part).
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(c.logit_scale), ())
        if c.logit_bias is not None:
            self.logit_bias = self.param("logit_bias", nn.initializers.constant(c.logit_bias), ())

    def __call__(
        self,
        images: Float[Array, "I H W C"],
        input_ids: Int[Array, "T L"],
        *,
        train: bool = False,
    ) -> CLIPOutput:
        """Embeds images and texts, and compares each image with each text.

        Args:
            images: normalised pixels, `image_size` square.
            input_ids: token ids; no mask is needed (see `CLIPTextTower`).
            train: see the image towers.

        Raises:
            DataError: images or texts of another shape than the configuration's.
        """
        embeds = self.embed(images, input_ids, train=train)
        return CLIPOutput(self.logits(*embeds), *embeds)

    def embed(
        self,
        images: Float[Array, "I H W C"],
        input_ids: Int[Array, "T L"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "I E"], Float[Array, "T E"]]:
        """Unit vectors of the images and of the texts."""
        return (
            normalise(self.encode_image(images, train=train)),
            normalise(self.encode_text(input_ids, train=train)),
        )

    def encode_image(
        self, images: Float[Array, "I H W C"], *, train: bool = False
    ) -> Float[Array, "I E"]:
        """Projected encodings of the images, not normalised."""
        return self.image.encode(images, train=train)

    def encode_text(
        self, input_ids: Int[Array, "T L"], *, train: bool = False
    ) -> Float[Array, "T E"]:
        """Projected encodings of the texts, not normalised."""
        return self.text.encode(input_ids, train=train)

    def image_features(
        self, images: Float[Array, "I H W C"], *, train: bool = False
    ) -> Float[Array, "I D"]:
        """Features of the images before the projection (appendix A.3, the linear probe)."""
        return self.image.pooled(images, train=train)

    def logits(
        self, image_embeds: Float[Array, "I E"], text_embeds: Float[Array, "T E"]
    ) -> Float[Array, "I T"]:
        """exp(logit_scale) cos(image, text), plus `logit_bias` if there is one."""
        # The product of unit vectors is their cosine; at the highest precision, since
        # the scale grows to 100.
        cosines = jnp.einsum("IE,TE->IT", image_embeds, text_embeds, precision="highest")
        logits = jnp.exp(self.logit_scale) * cosines
        return logits if self.config.logit_bias is None else logits + self.logit_bias
