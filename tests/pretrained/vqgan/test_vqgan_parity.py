"""VQGAN against taming-transformers and Unified-IO's release: codes, images, weights in and out."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import vqgan_cases as cases
from flax import traverse_util
from folders import read, write

from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.layers import Execution
from jaxformers.models import VQGAN, PatchDiscriminator, PatchDiscriminatorConfig, VQGANConfig
from jaxformers.models.vqgan.lpips import LPIPS
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.vqgan.lpips import read_lpips
from jaxformers.pretrained.vqgan.vqgan_family import unsupported_reason
from jaxformers.pretrained.vqgan.vqgan_names import unified_io_entries

NAMES = sorted(cases.CASES)
GOLDEN = np.load(cases.OUTPUTS)


def published(name, folder):
    """The case as a folder: the published fields and taming's tensors."""
    return write(folder, {"model_type": "vqgan", **cases.CASES[name][0]}, cases.weights(name))


def load(name, folder):
    return load_pretrained(published(name, folder))


@partial(jax.jit, static_argnums=0)
def decode(model, variables, codes):
    return model.apply(variables, codes, method="decode")


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", NAMES)
def test_codes_and_images_are_those_of_the_published_code(name, tmp_path):
    model, variables = load(name, tmp_path)
    outputs = jax.jit(lambda v, x: model.apply(v, x, method="outputs"))(
        variables, cases.images(name)
    )
    codes = np.asarray(outputs.quantized.codes).reshape(2, -1)
    np.testing.assert_array_equal(codes, GOLDEN[f"{name}/codes"])
    np.testing.assert_allclose(outputs.images, GOLDEN[f"{name}/images"], atol=5e-5)
    np.testing.assert_allclose(outputs.quantized.loss.mean(), GOLDEN[f"{name}/loss"], rtol=1e-5)
    decoded = decode(model, variables, cases.codes(name))
    np.testing.assert_allclose(decoded, GOLDEN[f"{name}/decoded"], atol=5e-5)


def test_encode_and_decode_take_square_grids_row_after_row(tmp_path):
    name = "one_level"
    model, variables = load(name, tmp_path)
    images, flat = cases.images(name), GOLDEN[f"{name}/codes"]
    encode = jax.jit(partial(model.apply, method="encode"))
    np.testing.assert_array_equal(encode(variables, images), flat)
    reconstructed = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(reconstructed, GOLDEN[f"{name}/images"], atol=5e-5)
    decoded = decode(model, variables, flat)
    np.testing.assert_allclose(decoded, GOLDEN[f"{name}/images"], atol=5e-5)
    with pytest.raises(DataError, match="48 codes are no square grid"):
        model.apply(variables, flat[:, :48], method="decode")


@pytest.mark.slow
def test_remat_changes_no_gradient(tmp_path):
    name = "attention_twice"
    model, variables = load(name, tmp_path)

    def gradient(remat):
        rematted = model.clone(execution=Execution(remat=remat))
        return jax.jit(jax.grad(lambda v: rematted.apply(v, cases.images(name)).sum()))(variables)

    plain, full = gradient("none"), gradient("full")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), plain, full)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", sorted(cases.UNIFIED_IO))
def test_the_names_of_unified_io_lead_to_the_same_variables(name, tmp_path):
    model, variables = load(name, tmp_path)
    leaves = traverse_util.flatten_dict(variables["params"], sep="/")
    levels, mapped = len(model.config.ch_mult), set()
    for entry in unified_io_entries(model.config):
        if entry.paths in leaves:
            leaf = leaves[entry.paths]
            theirs = cases.unified_io_tensor(entry.names, leaf.shape, levels)
            np.testing.assert_array_equal(theirs, leaf)
            mapped.add(entry.paths)
    assert mapped == set(leaves)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_saved_folders_hold_the_published_tensors_and_fields(name, tmp_path):
    model, variables = load(name, tmp_path / "theirs")
    save_pretrained(model, variables, tmp_path / "ours")
    config, tensors = read(tmp_path / "ours")
    assert {k: config[k] for k in cases.CASES[name][0]} == cases.CASES[name][0]
    expected = cases.weights(name)
    assert tensors.keys() == expected.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, expected[key])


def test_a_single_file_of_a_training_run_tells_its_size(tmp_path):
    name = "attention_twice"
    training = {
        "loss.discriminator.main.0.weight": np.ones((4, 3, 4, 4), np.float32),
        "loss.perceptual_loss.lin0.model.1.weight": np.ones((1, 4, 1, 1), np.float32),
    }
    path = tmp_path / "last.safetensors"
    safetensors.numpy.save_file(cases.weights(name) | training, path)
    model, variables = load_pretrained(path)
    # Only the resolution is not in the file: attention is at the same levels of one of 256.
    expected = cases.CASES[name][0] | {"resolution": 256, "attn_resolutions": (256, 64)}
    fields = {k: v for k, v in expected.items() if k != "double_z"}
    assert model.config == VQGANConfig(**fields | {"ch_mult": tuple(expected["ch_mult"])})
    codebook = variables["params"]["quantizer"]["codebook"]
    np.testing.assert_array_equal(codebook, cases.weights(name)["quantize.embedding.weight"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attn_resolutions": 16}, "attn_resolutions is 16, not a list"),
        ({"ch": 48}, "ch is 48; group norm needs a multiple of 32"),
        ({"ch_mult": []}, "ch_mult is empty"),
        ({"ch_mult": [1, "2"]}, "ch_mult is .* not a list of at most 16 whole numbers"),
        ({"double_z": True}, "double_z is True, and only False is supported"),
        ({"n_embed": 61}, "misshapen quantize.embedding.weight"),
        ({"num_res_blocks": 2}, "missing encoder.down.0.block.1.norm1.weight"),
        ({"num_res_blocks": 1000000}, "num_res_blocks is 1000000, larger than any model's"),
        ({"resolution": 30}, "resolution 30 does not divide by 4"),
    ],
)
def test_configurations_that_do_not_fit_are_refused_in_a_line(fields, message, tmp_path):
    config = {"model_type": "vqgan", **cases.CASES["three_levels"][0], **fields}
    folder = write(tmp_path, config, cases.weights("three_levels"))
    with pytest.raises(WeightsError, match=message) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_images_that_do_not_divide_are_refused():
    model = VQGAN(VQGANConfig(ch=32, ch_mult=(1, 1, 1), num_res_blocks=1, n_embed=4))
    for shape, message in (
        ((1, 16, 18, 3), "16 x 18 pixels: VQGAN takes heights and widths that divide by 4"),
        ((1, 16, 16, 1), r"VQGAN takes \[batch, height, width, 3\]"),
    ):
        with pytest.raises(DataError, match=message):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    with pytest.raises(ConfigError, match="n_embed is 0"):
        VQGANConfig(n_embed=0)


def test_the_published_models_have_their_parameters():
    for config, count in (
        (VQGANConfig.f16_16384(), 76_073_859),
        (VQGANConfig.f16_1024(), 72_141_699),
    ):
        images = jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
        variables = jax.eval_shape(VQGAN(config).init, jax.random.key(0), images)
        assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count
    discriminator = PatchDiscriminator(PatchDiscriminatorConfig())
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(discriminator.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 2_765_633


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", sorted(cases.DISCRIMINATORS))
def test_the_discriminator_gives_the_published_logits(name):
    config = cases.DISCRIMINATORS[name][0]
    module = PatchDiscriminator(PatchDiscriminatorConfig(3, config["ndf"], config["n_layers"]))
    variables = cases.discriminator_variables(cases.weights(name), config["n_layers"])
    for mode, train in (("eval", False), ("train", True)):
        logits = module.apply(variables, cases.images(name), train=train)
        np.testing.assert_allclose(logits, GOLDEN[f"{name}/{mode}"], rtol=1e-4, atol=1e-4)


def test_lpips_is_that_of_the_published_weights_in_one_file_or_two(tmp_path):
    weights = cases.lpips_weights()
    combined, vgg, linear = (
        tmp_path / f"{name}.safetensors" for name in ("whole", "vgg", "linear")
    )
    prefixed = {f"loss.perceptual_loss.{name}": tensor for name, tensor in weights.items()}
    safetensors.numpy.save_file(prefixed, combined)
    # torchvision's own names, beside those of a classifier that is not used.
    names = {name: name.split(".") for name in weights}
    features = {
        f"features.{components[2]}.{components[3]}": weights[name]
        for name, components in names.items()
        if components[0] == "net"
    }
    unused = {"classifier.0.weight": np.ones((2, 2), np.float32)}
    safetensors.numpy.save_file(features | unused, vgg)
    layers = {name: tensor for name, tensor in weights.items() if name.startswith("lin")}
    safetensors.numpy.save_file(layers, linear)
    params = read_lpips((combined,))
    distances = jax.jit(LPIPS().apply)({"params": params}, *cases.lpips_images())
    np.testing.assert_allclose(distances, GOLDEN["lpips/distances"], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, params, read_lpips((vgg, linear)))
    with pytest.raises(WeightsError, match="missing lin0, lin1, lin2, lin3, lin4"):
        read_lpips((vgg,))


def test_norms_of_other_groups_cannot_be_written_with_taming_s_names():
    config = VQGANConfig(ch=16, ch_mult=(1,), num_res_blocks=1, n_embed=4, norm_groups=4)
    assert "norm_groups=4, the published code's 32" in unsupported_reason(VQGAN(config), {})
    assert unsupported_reason(VQGAN(replace(config, ch=32, norm_groups=32)), {}) is None
    with pytest.raises(ConfigError, match="ch is 16; group norm needs a multiple of 3"):
        replace(config, norm_groups=3)
