"""Unified-IO's msgpack files: in and out without unpickling, and what is refused."""

import json
from pathlib import Path

import flax
import jax
import numpy as np
import pytest
from flax import traverse_util

from jaxformers.errors import ConfigError, WeightsError
from jaxformers.models import UnifiedIO, UnifiedIOConfig, VQGANConfig
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.formats.flax_msgpack import FlaxFile
from jaxformers.pretrained.unified_io.unified_io_family import read_file_config, unified_io_map
from tests.fixtures import unified_io_cases as cases
from tests.helpers.unified_io import (
    NAMES,
    claim_four_gigabytes,
    config_fields,
    truncate,
    write_folder,
)

SIZES = {"small": 147_767_043, "base": 317_520_771, "large": 852_622_211, "xl": 2_925_235_075}


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tiny")


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(cases.__file__).parent / "unified_io.npz") as file:
        return dict(file)


def test_a_folder_gives_the_network_with_its_image_tokenizer_inside(folder, golden):
    model, variables = load_pretrained(folder)
    logits = jax.jit(model.apply)(variables, **cases.inputs("both"))
    np.testing.assert_allclose(logits.text_logits, golden["both/text_logits"], atol=1e-4)
    np.testing.assert_allclose(logits.image_logits, golden["both/image_logits"], atol=1e-4)

    @jax.jit
    def tokenize(variables, images):
        codes = model.apply(variables, images, method="encode_image")
        return codes, model.apply(variables, codes, method="decode_image")

    codes, images = tokenize(variables, cases.target_images())
    np.testing.assert_array_equal(codes, golden["vae/codes"])
    np.testing.assert_allclose(images, golden["vae/images"], atol=1e-4)


@pytest.mark.slow
def test_files_written_hold_what_was_read(folder, tmp_path):
    model, variables = load_pretrained(folder)
    (folder / "spiece.model").write_bytes(b"T5's pieces")
    save_pretrained(model, variables, tmp_path / "out", tokenizer=folder)
    assert (tmp_path / "out/spiece.model").read_bytes() == b"T5's pieces"
    content = json.loads((tmp_path / "out/config.json").read_text())
    assert content == config_fields() | {
        "dropout_rate": 0.0,
        "mlp_activations": ["gelu", "linear"],
        "logits_via_embedding": True,
    }
    saved = FlaxFile(tmp_path / "out/unified_io.bin")
    expected = cases.weights(NAMES["odd"])
    assert dict(saved.shapes) == {name: array.shape for name, array in expected.items()}
    for name, array in expected.items():
        np.testing.assert_array_equal(saved.read(name), array)
    restored = flax.serialization.msgpack_restore((tmp_path / "out/unified_io.bin").read_bytes())
    flat = traverse_util.flatten_dict(restored, sep="/")
    assert all((flat[name] == array).all() for name, array in expected.items())

    save_pretrained(model, variables, tmp_path / "native", "jaxformers")
    again, same = load_pretrained(tmp_path / "native")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, variables, same)


@pytest.mark.slow
def test_a_network_without_an_image_tokenizer_is_saved_in_our_own_format(tmp_path):
    config = UnifiedIOConfig(
        **dict(vocab_size=30, image_vocab_size=8, width=8, heads=2, head_width=4),
        **dict(feed_forward=8, encoder_layers=1, decoder_layers=1, patch_size=4),
    )
    model = UnifiedIO(config)
    variables = jax.jit(model.init)(jax.random.key(0))
    save_pretrained(model, variables, tmp_path / "network")
    assert load_pretrained(tmp_path / "network")[0].config == config
    with pytest.raises(WeightsError, match="it has no image tokenizer"):
        save_pretrained(model, variables, tmp_path / "other", "unified_io")
    with pytest.raises(ConfigError, match="this model has no image tokenizer"):
        model.apply(variables, np.zeros((1, 4), np.int32), method="decode_image")


class Shapes:
    place = "small_1000k.bin"

    def __init__(self, shapes):
        self.shapes = shapes


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("size", sorted(SIZES))
def test_a_published_file_alone_tells_its_size(size):
    config = getattr(UnifiedIOConfig, size)(image_tokenizer=VQGANConfig(codebook_init="normal"))
    variables = jax.eval_shape(UnifiedIO(config).init, jax.random.key(0))
    shapes = {
        "/".join(path): tuple(leaf.shape)
        for path, leaf in traverse_util.flatten_dict(variables).items()
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == SIZES[size]
    slots = unified_io_map(config).slots(shapes)
    stored = {slot.names[0]: slot.their_shape for slot in slots}
    assert len(stored) == {"small": 550, "base": 642}.get(size, 918)
    assert read_file_config(Shapes(stored)) == config


def test_a_file_of_another_size_needs_a_config(folder):
    with pytest.raises(WeightsError, match=r"is of no published size .* beside a config\.json"):
        load_pretrained(folder / "tiny_1000k.bin")


def _set(folder, **changes):
    (folder / "config.json").write_text(json.dumps(config_fields(**changes)))


def _pickle(folder):
    (folder / "tiny_1000k.bin").write_bytes(b"\x80\x02}q\x00.")


DAMAGE = {
    "another size": (lambda f: _set(f, emb_dim=24), "misshapen .*instead of"),
    "more layers": (lambda f: _set(f, num_encoder_layers=3), "missing encoder/layers_2"),
    "fewer layers": (lambda f: _set(f, num_decoder_layers=2), "unexpected decoder/layers_2"),
    "vae": (lambda f: _set(f, vae=7), "vae is 7"),
    "vae's codes": (lambda f: _set(f, vae=cases.VAE | {"n_embed": 13}), "n_embed=13"),
    "activations": (lambda f: _set(f, mlp_activations=["relu"]), "mlp_activations is"),
    "backbone": (lambda f: _set(f, visual_backbone_type="resnet"), "no visual backbone"),
    "image size": (lambda f: _set(f, default_image_size=[16]), "default_image_size is"),
    "truncated": (truncate, "truncated, damaged"),
    "lengths that lie": (claim_four_gigabytes, "truncated, damaged"),
    "pickle": (_pickle, "truncated, damaged or no msgpack"),
    "two files": (lambda f: (f / "b.bin").write_bytes(b"\x80"), "holds 2 files"),
    "no file": (lambda f: (f / "tiny_1000k.bin").unlink(), "holds 0 files"),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_damaged_folders_are_refused_in_one_line(damage, folder):
    spoil, message = DAMAGE[damage]
    spoil(folder)
    with pytest.raises(WeightsError, match=message) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)
