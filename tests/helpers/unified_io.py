"""Tiny Unified-IO networks: those of the fixtures, with the authors' parameters, and one to ask."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import flax
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

FILE = "tiny_1000k.bin"
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


def config_fields(**changes):
    """The `config.json` beside the authors' file of the network "odd"."""
    return {"model_type": "unified_io", **cases.CONFIGS["odd"], "vae": cases.VAE} | changes


def write_folder(path):
    """Writes the network "odd" as the authors do, with a `config.json`."""
    path.mkdir()
    params = unflatten(cases.weights(NAMES["odd"]))
    (path / FILE).write_bytes(flax.serialization.to_bytes(params))
    (path / "config.json").write_text(json.dumps(config_fields()))
    return path


def truncate(folder):
    """Cuts the end off the folder's file."""
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])


def claim_four_gigabytes(folder):
    """Replaces the folder's file by a map of one name, whose array claims four gigabytes."""
    content = b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\xce\x40\x00\x00\x00\xa7float32"
    (folder / FILE).write_bytes(content + b"\xc6\xff\xff\xff\xf0" + b"\0" * 64)
