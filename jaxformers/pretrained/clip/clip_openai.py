"""CLIP in OpenAI's archives and in files of the same names, such as open_clip's.

The shapes tell the architecture (section 2.4 of the paper has heads of 64), but not the GELU:
OpenAI's archives, which hold three numbers beside the weights, use the quick form; a plain file
does not say, and is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.layers import Activation, Execution
from jaxformers.models.clip import CLIP, CLIPConfig, CLIPImageConfig, CLIPTextConfig
from jaxformers.models.clip.config import ImageTowerConfig, ModifiedResNetConfig
from jaxformers.pretrained.clip.clip_names import openai_map
from jaxformers.pretrained.family import LoadedModel
from jaxformers.pretrained.mapping.name_map import TensorSource
from jaxformers.pretrained.mapping.transforms import Shape
from jaxformers.pretrained.model_variables import DEFAULT_EXECUTION, read_model

HEAD_WIDTH = 64
ARCHIVE_NUMBERS = {"input_resolution", "context_length", "vocab_size"}


def recognises(shapes: Mapping[str, Shape]) -> bool:
    """Whether tensors have OpenAI's names of a CLIP."""
    names = {"text_projection", "positional_embedding", "ln_final.weight", "logit_scale"}
    return names <= shapes.keys() and any(name.startswith("visual.") for name in shapes)


def load_file(source: TensorSource, execution: Execution = DEFAULT_EXECUTION) -> LoadedModel:
    """The model in a file, whose shapes tell its size.

    Raises:
        WeightsError: tensors that no CLIP of ours has, or a file that does not tell its GELU.
    """
    config = read_file_config(source)
    return read_model(CLIP(config, execution), openai_map(config), source)


def read_file_config(source: TensorSource) -> CLIPConfig:
    """The configuration that the shapes of OpenAI's archive imply.

    Raises:
        WeightsError: as for `load_file`.
    """
    if not source.shapes.keys() >= ARCHIVE_NUMBERS:
        raise WeightsError(
            f"{source.place}: CLIP's weights without OpenAI's {', '.join(sorted(ARCHIVE_NUMBERS))} "
            "do not tell whether their GELU is the quick one: put the file into a folder, as "
            "open_clip_model.safetensors beside an open_clip_config.json with quick_gelu, or "
            "load OpenAI's own archive"
        )
    return from_shapes(source, "quick_gelu")


def from_shapes(source: TensorSource, activation: Activation) -> CLIPConfig:
    """The configuration of tensors with OpenAI's names.

    Raises:
        WeightsError: tensors that no CLIP of ours has.
    """
    try:
        return _from_shapes(source.shapes, activation)
    except (ConfigError, KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{source.place}: its tensors make no CLIP ({error})") from None


def _from_shapes(shapes: Mapping[str, Shape], activation: Activation) -> CLIPConfig:
    vocab_size, width = shapes["token_embedding.weight"]
    projection = shapes["text_projection"][1]
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        context_length=shapes["positional_embedding"][0],
        width=width,
        heads=width // HEAD_WIDTH,
        feed_forward=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=_count(shapes, r"transformer\.resblocks\.(\d+)\..*"),
        eos_id=vocab_size - 1,
        projection=projection,
        activation=activation,
    )
    image = _vit(shapes, activation) if "visual.proj" in shapes else _modified_resnet(shapes)
    return CLIPConfig(image, text)


def _vit(shapes: Mapping[str, Shape], activation: Activation) -> ImageTowerConfig:
    width, channels, patch_size, _ = shapes["visual.conv1.weight"]
    grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    return CLIPImageConfig(
        image_size=grid * patch_size,
        patch_size=patch_size,
        channels=channels,
        width=width,
        heads=width // HEAD_WIDTH,
        feed_forward=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
        layers=_count(shapes, r"visual\.transformer\.resblocks\.(\d+)\..*"),
        projection=shapes["visual.proj"][1],
        activation=activation,
    )


def _modified_resnet(shapes: Mapping[str, Shape]) -> ImageTowerConfig:
    width = shapes["visual.layer1.0.conv1.weight"][0]
    grid = math.isqrt(shapes["visual.attnpool.positional_embedding"][0] - 1)
    depths = tuple(_count(shapes, rf"visual\.layer{stage}\.(\d+)\..*") for stage in range(1, 5))
    return ModifiedResNetConfig(
        image_size=32 * grid,
        channels=shapes["visual.conv1.weight"][1],
        depths=depths,
        width=width,
        heads=32 * width // HEAD_WIDTH,
        projection=shapes["visual.attnpool.c_proj.weight"][0],
    )


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    """One more than the largest number that the pattern's group matches in a name."""
    matches = (re.fullmatch(pattern, name) for name in shapes)
    return 1 + max(int(match[1]) for match in matches if match)
