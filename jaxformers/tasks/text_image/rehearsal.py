"""The small model and mixture that `TextImage` rehearses with, without weights or data."""

from __future__ import annotations

from dataclasses import replace

from jaxformers.data.mixture import Mixture
from jaxformers.data.scenes import EmojiScenes
from jaxformers.models import UnifiedIOConfig, VQGANConfig
from jaxformers.pretrained import registry
from jaxformers.tasks.text_image.answers.captioning import Captioning
from jaxformers.tasks.text_image.answers.vqa import VQA
from jaxformers.tasks.text_image.pictures.maps import Depth

TEXT_LENGTH, TARGET_LENGTH = 32, 16  # tokens


def rehearsal_model(image_tokenizer: VQGANConfig) -> UnifiedIOConfig:
    """Some thousand parameters: pictures of 2 x 2 patches in, of 2 x 2 codes out.

    Its image tokenizer has the parameters of a rehearsed run of `image_tokenizer`, which it may
    follow.
    """
    image_tokenizer = replace(registry.shrink(image_tokenizer), resolution=4)
    return UnifiedIOConfig(
        vocab_size=1152,
        image_vocab_size=image_tokenizer.n_embed,
        width=16,
        heads=2,
        head_width=8,
        feed_forward=32,
        encoder_layers=1,
        decoder_layers=1,
        patch_size=8,
        image_rows=16,
        image_columns=16,
        encoder_text_length=TEXT_LENGTH,
        encoder_image_length=4,
        decoder_text_length=TARGET_LENGTH,
        decoder_image_length=image_tokenizer.grid**2,
        image_tokenizer=image_tokenizer,
    )


def rehearsal_mixture() -> Mixture:
    """Three tasks on emoji scenes: two with a text as answer, one with a picture."""
    scenes = EmojiScenes(size=64, side=16, most_objects=2, things=4)
    return Mixture({"vqa": VQA(scenes), "caption": Captioning(scenes), "depth": Depth(scenes)})
