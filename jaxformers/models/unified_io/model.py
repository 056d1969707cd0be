"""Unified-IO: Lu et al. 2022, "Unified-IO: A Unified Model for Vision, Language, and Multi-Modal
Tasks".

An encoder reads text and the patches of an image, a decoder predicts text and then the codes of an
image; every task is one of sequences. What the paper leaves open follows the authors' released
code.

Axis letters: B batch, S input text, P patches, E numbers of a patch, H and W pixels, T target text,
C target codes, L encoder tokens (S + P), V text vocabulary, K codes, D model width.
"""

from __future__ import annotations

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxformers.arrays import Array
from jaxformers.errors import ConfigError, DataError
from jaxformers.layers import Execution
from jaxformers.models.unified_io.config import UnifiedIOConfig
from jaxformers.models.unified_io.decoder import UnifiedIODecoder
from jaxformers.models.unified_io.encoder import Patches, UnifiedIOEncoder, cut_patches
from jaxformers.models.unified_io.token_tables import TokenTables
from jaxformers.models.vqgan import VQGAN
from jaxformers.sharding import batch_multiple

Images = Float[Array, "B H W channels"] | Float[Array, "B P E"]


@flax.struct.dataclass
class UnifiedIOOutput:
    """Float32 logits of the next token at each target position.

    Attributes:
        text_logits: `[B, T, V]` over the text vocabulary; T is 0 without target text.
        image_logits: `[B, C, K]` over the codes, without their offset V; C is 0 without codes.
    """

    text_logits: Array
    image_logits: Array


class UnifiedIO(nn.Module):
    """Unified-IO: `model.apply(variables, input_ids, images=images, target_ids=target_ids)`.

    Lu et al., "Unified-IO: A Unified Model for Vision, Language, and Multi-Modal Tasks", 2022.
    `method="encode_image"` gives the codes of images, `method="decode_image"` images of codes.

    Example:
        >>> config = jf.UnifiedIOConfig(
        ...     vocab_size=1200, image_vocab_size=16, width=16, heads=2, head_width=8,
        ...     feed_forward=32, encoder_layers=1, decoder_layers=1, image_rows=32,
        ...     image_columns=32, encoder_image_length=4,
        ... )
        >>> model, input_ids = jf.UnifiedIO(config), jnp.array([[5, 6, 1]])
        >>> target_ids = jnp.array([[0, 7]])  # shifted: 0 starts
        >>> variables = model.init(jax.random.key(0), input_ids, target_ids=target_ids)
        >>> model.apply(variables, input_ids, target_ids=target_ids).text_logits.shape
        (1, 2, 1200)
    """

    config: UnifiedIOConfig
    execution: Execution = Execution()

    def setup(self):
        self.tokens = TokenTables(self.config, self.execution)
        self.encoder = UnifiedIOEncoder(self.config, self.execution)
        self.decoder = UnifiedIODecoder(self.config, self.execution)
        if self.config.image_tokenizer is not None:
            self.image_tokenizer = VQGAN(self.config.image_tokenizer, self.execution)

    def __call__(
        self,
        input_ids: Int[Array, "B S"] | None = None,
        input_mask: Array | None = None,
        images: Images | None = None,
        image_mask: Array | None = None,
        target_ids: Int[Array, "B T"] | None = None,
        target_mask: Array | None = None,
        target_codes: Int[Array, "B C"] | None = None,
        *,
        image_positions: Int[Array, "B P"] | None = None,
        train: bool = False,
    ) -> UnifiedIOOutput:
        """Logits of target text and target codes. What is not given is as if absent.

        Args:
            input_ids: input text.
            input_mask: `[B, S]`, 1 for tokens, 0 for padding; None: no padding.
            images: normalised pixels, or flat patches in the order row, column, channel.
            image_mask: `[B, P]`, 1 for patches to attend to; None: all.
            target_ids: decoder inputs, already shifted: 0, then the target text.
            target_mask: `[B, T]`, 1 for tokens, 0 for padding; None: no padding.
            target_codes: decoder inputs, already shifted: V - 1, then V + code.
            image_positions: each flat patch's running number in the grid, row by row; None: 0,
                1, 2...
            train: dropout on; needs `rngs={"dropout": key}`.

        Raises:
            DataError: neither input or neither target, shapes that do not fit together, or
                sequences longer than the model's positions.
        """
        if self.is_initializing():
            input_ids, images, target_ids, target_codes = self._all_inputs(
                input_ids, images, target_ids, target_codes
            )
            self._create_image_tokenizer()
        memory, memory_mask = self.encode_masked(
            input_ids, input_mask, images, image_mask, image_positions=image_positions, train=train
        )
        return self.decode(memory, memory_mask, target_ids, target_mask, target_codes, train=train)

    def encode(
        self,
        input_ids: Int[Array, "B S"] | None = None,
        input_mask: Array | None = None,
        images: Images | None = None,
        image_mask: Array | None = None,
        *,
        image_positions: Int[Array, "B P"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B L D"]:
        """The encoder's states, text first; arguments and errors as for `__call__`."""
        return self.encode_masked(
            input_ids, input_mask, images, image_mask, image_positions=image_positions, train=train
        )[0]

    def encode_masked(
        self,
        input_ids: Int[Array, "B S"] | None = None,
        input_mask: Array | None = None,
        images: Images | None = None,
        image_mask: Array | None = None,
        *,
        image_positions: Int[Array, "B P"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B L D"], Array | None]:
        """The encoder's states and their mask `[B, L]`; None: all are valid."""
        ids, patches = self._inputs(input_ids, images, image_positions)
        masks = {"input_mask": input_mask, "image_mask": image_mask}
        mask = _joined_mask(masks, ids.shape[0], (ids.shape[1], patches.values.shape[1]))
        return self.encoder(self.tokens(ids), patches, mask, train=train), mask

    def decode(
        self,
        memory: Float[Array, "B L D"],
        memory_mask: Array | None = None,
        target_ids: Int[Array, "B T"] | None = None,
        target_mask: Array | None = None,
        target_codes: Int[Array, "B C"] | None = None,
        *,
        train: bool = False,
    ) -> UnifiedIOOutput:
        """Logits for the encoder's states and their mask `[B, L]`; the others as for `__call__`."""
        c = self.config
        if target_ids is None and target_codes is None:
            raise DataError("no target: give target_ids, target_codes or both")
        text, codes = (
            jnp.zeros((memory.shape[0], 0), jnp.int32) if ids is None else ids
            for ids in (target_ids, target_codes)
        )
        _check_length("target_ids", text.shape[1], c.decoder_text_length)
        _check_length("target_codes", codes.shape[1], c.decoder_image_length)
        num_text, ids = text.shape[1], jnp.concatenate([text, codes], axis=1)
        masks = {"target_mask": target_mask, "": None}
        mask = _joined_mask(masks, ids.shape[0], (num_text, codes.shape[1]))
        states = self.decoder(self.tokens(ids), num_text, memory, mask, memory_mask, train=train)
        return UnifiedIOOutput(
            self.tokens.text_logits(states[:, :num_text]),
            self.tokens.code_logits(states[:, num_text:]),
        )

    def encode_image(self, images: Float[Array, "B H W channels"]) -> Int[Array, "B N"]:
        """Codes of images in -1..1, row after row, from 0 on: targets without their offset V.

        Raises:
            ConfigError: a model without an image tokenizer.
        """
        return self._image_tokenizer().encode(images)

    def decode_image(self, codes: Int[Array, "B N"]) -> Float[Array, "B H W channels"]:
        """Images of codes from 0 on, in -1..1 but not clipped; N is a square.

        Raises:
            ConfigError: a model without an image tokenizer.
        """
        return self._image_tokenizer().decode(codes)

    def _image_tokenizer(self) -> VQGAN:
        if self.config.image_tokenizer is None:
            raise ConfigError(
                "this model has no image tokenizer: set image_tokenizer=VQGANConfig() in its "
                "configuration, or load weights that hold one"
            )
        return self.image_tokenizer

    def _create_image_tokenizer(self) -> None:
        """Runs the image tokenizer, if there is one, over as many pixels as a code stands for."""
        tokenizer = self.config.image_tokenizer
        if tokenizer is not None:
            shape = (batch_multiple(), *(tokenizer.downsampling,) * 2, tokenizer.in_channels)
            self.image_tokenizer(jnp.zeros(shape))

    def _inputs(
        self, input_ids: Array | None, images: Array | None, image_positions: Array | None
    ) -> tuple[Array, Patches]:
        """Input ids `[B, S]` and patches; what is absent has a length of 0."""
        c = self.config
        if images is None:
            if input_ids is None:
                raise DataError("no input: give input_ids, images or both")
            if image_positions is not None:
                raise DataError("image_positions without images: give the patches they belong to")
            images = jnp.zeros((input_ids.shape[0], 0, c.numbers_per_patch))
        ids = jnp.zeros((images.shape[0], 0), jnp.int32) if input_ids is None else input_ids
        if ids.shape[0] != images.shape[0]:
            raise DataError(f"{ids.shape[0]} texts for {images.shape[0]} images: give as many")
        _check_length("input_ids", ids.shape[1], c.encoder_text_length)
        return ids, cut_patches(images, image_positions, c)

    def _all_inputs(self, input_ids, images, target_ids, target_codes) -> tuple[Array, ...]:
        """Smallest inputs in place of absent ones, so that every parameter is created."""
        present = [x for x in (input_ids, images, target_ids, target_codes) if x is not None]
        batch = present[0].shape[0] if present else 1
        ids, patch = jnp.zeros((batch, 1), jnp.int32), (batch, 1, self.config.numbers_per_patch)
        return (
            ids if input_ids is None else input_ids,
            jnp.zeros(patch) if images is None else images,
            ids if target_ids is None else target_ids,
            ids + self.config.image_start_id if target_codes is None else target_codes,
        )


def _joined_mask(
    masks: dict[str, Array | None], batch: int, lengths: tuple[int, int]
) -> Array | None:
    """Masks by their arguments' names, side by side; None: nothing is masked.

    Raises:
        DataError: a mask of another shape than its tokens.
    """
    if all(mask is None for mask in masks.values()):
        return None
    columns = []
    for (name, mask), length in zip(masks.items(), lengths, strict=True):
        if mask is None:
            mask = jnp.ones((batch, length), bool)
        elif mask.shape != (batch, length):
            raise DataError(
                f"{name} of shape {tuple(mask.shape)} for {length} tokens of {batch} examples"
            )
        columns.append(mask.astype(bool))
    return jnp.concatenate(columns, axis=1)


def _check_length(name: str, length: int, longest: int) -> None:
    if length > longest:
        raise DataError(f"{name} of {length} tokens are longer than the model's {longest}")
