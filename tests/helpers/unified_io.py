"""Tiny Unified-IO networks: those of the fixtures, with the authors' parameters, and one to ask."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np

from jaxformers.data.mixture import Mixture
from jaxformers.layers import Execution
from jaxformers.models import VQGANConfig
from jaxformers.models.unified_io import UnifiedIO, UnifiedIOConfig
from jaxformers.pretrained.model_variables import flatten, unflatten
from jaxformers.pretrained.unified_io.unified_io_names import unified_io_map
from jaxformers.tasks import text_image as ti
from jaxformers.tasks.processor import Processor
from jaxformers.text import UnifiedIOTokenizer
from tests.fixtures import unified_io_cases as cases

NAMES = json.loads((Path(cases.__file__).parent / "unified_io_names.json").read_text())


def config_of(fields):
    rows, columns = fields["default_image_size"]
    return UnifiedIOConfig(
        vocab_size=fields["vocab_size"],
        image_vocab_size=fields["image_vocab_size"],
        width=fields["emb_dim"],
        heads=fields["num_heads"],
        head_width=fields["head_dim"],
        feed_forward=fields["mlp_dim"],
        encoder_layers=fields["num_encoder_layers"],
        decoder_layers=fields["num_decoder_layers"],
        segments=fields["num_seg_emb"],
        patch_size=fields["image_patch_size"],
        image_rows=rows,
        image_columns=columns,
        encoder_text_length=fields["encoder_max_text_length"],
        encoder_image_length=fields["encoder_max_image_length"],
        decoder_text_length=fields["decoder_max_text_length"],
        decoder_image_length=fields["decoder_max_image_length"],
    )


class Source:
    """The reference's parameters by name."""

    place = "the reference"

    def __init__(self, name):
        names = {k: v for k, v in NAMES[name].items() if not k.startswith("discrete_vae")}
        self.values = cases.weights(names)
        self.shapes = {k: tuple(v) for k, v in names.items()}

    def read(self, name):
        return self.values[name]


@cache
def network(name):
    """The network of a configuration, and its variables."""
    model = UnifiedIO(config_of(cases.CONFIGS[name]))
    leaves = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    return model, unflatten(unified_io_map(model.config).read(Source(name), shapes))


def source():
    """A model with an image tokenizer, random variables, and a processor of a few pieces."""
    config = UnifiedIOConfig.small(image_tokenizer=VQGANConfig())
    task = ti.TextImage(config, Mixture({"vqa": ti.VQA()})).rehearsal()
    model = UnifiedIO(replace(task.model, encoder_text_length=96), Execution())
    shapes = jax.eval_shape(lambda: task.init(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: 0.3 * rng.standard_normal(s.shape).astype(np.float32), shapes
    )
    text = 'What is in the image, a red bus ? " How many do the joints find' + "bcjkpquvxyz"
    return model, variables, Processor(UnifiedIOTokenizer.train([text] * 4, 38))
