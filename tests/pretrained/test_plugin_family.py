"""A family that a plug-in registers is saved, loaded, sharded, trained and planned like others."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxformers as jf
from jaxformers.data.images import Preprocessing
from jaxformers.errors import ConfigError, ShardingError, WeightsError
from jaxformers.fields import CheckedFields, PositiveInt
from jaxformers.layers import BlockConfig, EncoderStack, Execution, Linear, TokenEmbedding
from jaxformers.models import ViT, ViTConfig
from jaxformers.planning import local_pod
from jaxformers.pretrained import Family, register_family, registry
from jaxformers.runs.describe import describe
from jaxformers.sharding import MeshConfig, Row, batch_multiple
from jaxformers.tasks import Loss, Task, negative_log_likelihood
from jaxformers.tasks.evaluator import Evaluation
from jaxformers.tasks.processor import Processor
from jaxformers.text import WordPiece
from jaxformers.training.config.experiment_files import load_experiment

# ---------------------------------------------------------------- what a plug-in writes: the model


@dataclass(frozen=True)
class TwoTowersConfig(CheckedFields):
    image: ViTConfig
    vocab_size: PositiveInt
    text_layers: PositiveInt = 1
    embedding: PositiveInt = 8
    image_size = property(lambda self: self.image.image_size)
    channels = property(lambda self: self.image.channels)


class TwoTowers(nn.Module):
    """Scores `[B, B]` of every image with every text, from the library's public blocks."""

    config: TwoTowersConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, images, ids, *, train=False):
        c, width = self.config, self.config.image.width
        pixels = ViT(c.image, self.execution, name="image")(images, train=train)  # [B, D]
        tokens = TokenEmbedding(
            c.vocab_size, width, 0.02, execution=self.execution, name="token_embedding"
        ).embed(ids)
        block = BlockConfig(width, c.image.heads, c.image.feed_forward)
        words = EncoderStack(block, c.text_layers, execution=self.execution, name="text")
        words = words(tokens, train=train).mean(1)  # [B, D]
        images = Linear((width,), (c.embedding,), name="image_projection")(pixels)
        texts = Linear((width,), (c.embedding,), name="text_projection")(words)
        log_scale = self.param("log_scale", nn.initializers.ones, ())
        return jnp.exp(log_scale) * jnp.einsum("ie,te->it", images, texts)


# ---------------------------------------------------------------- the one registration


def inputs(config):
    side = config.image_size
    images = jax.ShapeDtypeStruct((1, side, side, config.channels), jnp.float32)
    return images, jax.ShapeDtypeStruct((1, 4), jnp.int32)


TWO_TOWERS = Family(
    "two_towers",
    TwoTowersConfig,
    {"two_towers": TwoTowers},
    inputs,
    tokenizers=(WordPiece,),
    takes_images=True,
    sharding_rows=(
        Row(r"(image|text)_projection/kernel", ("embed", None)),
        Row(r"(image|text)_projection/bias", (None,)),
        Row(r"log_scale", ()),
    ),
)

# ---------------------------------------------------------------- its task

ROWS, LENGTH, VOCABULARY = 8, 4, 40
CONFIG = TwoTowersConfig(ViTConfig(16, 8, 3, 16, 4, 32, 1, classes=0), VOCABULARY)


class PairData:
    """Texts that repeat one token, and images of that token's shade."""

    steps_per_epoch = 1.0

    def __init__(self):
        self.fingerprint = {"content": "shades"}
        words = ["one two three four five six seven eight"] * 4
        tokenizer = WordPiece.train(words, VOCABULARY)
        self.processor = Processor(tokenizer, Preprocessing(CONFIG.image_size))

    def batches(self, seed, start, host, hosts):
        while True:
            yield pairs()

    def describe(self):
        return "eight pairs"


def pairs():
    shades = np.linspace(-1, 1, ROWS, dtype=np.float32)
    images = np.broadcast_to(shades[:, None, None, None], (ROWS, 16, 16, 3))
    ids = np.broadcast_to(5 + np.arange(ROWS, dtype=np.int32)[:, None], (ROWS, LENGTH))
    return {"images": images.copy(), "ids": ids.copy()}


@dataclass(frozen=True)
class Pairing(Task):
    """Learns which text belongs to which image (an InfoNCE loss in one direction)."""

    model: TwoTowersConfig = CONFIG

    def module(self, execution):
        return TwoTowers(self.model, execution)

    def batch_shapes(self):
        return ({k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in pairs().items()},)

    def init(self, model, key):
        rows = batch_multiple()
        return model.init(key, jnp.zeros((rows, 16, 16, 3)), jnp.zeros((rows, LENGTH), jnp.int32))

    def loss(self, model, variables, batch, *, train=False, rngs=None):
        scores = model.apply(variables, batch["images"], batch["ids"], train=train, rngs=rngs)
        losses = negative_log_likelihood(scores, jnp.arange(len(scores)))
        return Loss(losses.sum(), jnp.float32(len(scores)), {}, {}, additive=False)

    def open(self, folder, seed, host=0):
        return PairData()

    def evaluators(self):
        return (PairingLoss(),)

    def rehearsal(self):
        return self


@dataclass(frozen=True)
class PairingLoss:
    """Evaluates the mean loss of all pairs."""

    name: str = "pairing"

    def evaluate(self, model, variables, processor, *, final):
        loss = Pairing().loss(model, variables, pairs())
        return Evaluation({"dev_loss": float(loss.total / loss.weight)})


# ---------------------------------------------------------------- what the library then does


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_families", dict(registry._families))
        yield register_family(TWO_TOWERS)


FILE = """
from jaxformers.sharding import MeshConfig
from jaxformers.training import Experiment, Linear
from test_plugin_family import Pairing, TwoTowersConfig


def experiment():
    schedule, mesh = Linear(1e-2, 5), MeshConfig(2, 2, 2)
    return Experiment("pairs", Pairing(), 30, schedule=schedule, mesh=mesh, vocab_multiple=16)
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    file = tmp_path_factory.mktemp("plugin") / "pairs.py"
    file.write_text(FILE)
    return load_experiment(file)


def apply(model, variables):
    return np.asarray(model.apply(variables, pairs()["images"], pairs()["ids"]))


def test_it_is_saved_and_loaded_in_the_native_format(tmp_path):
    model = TwoTowers(CONFIG)
    variables = model.init(jax.random.key(0), pairs()["images"], pairs()["ids"])
    jf.save_pretrained(model, variables, tmp_path)
    loaded, restored = jf.from_pretrained(tmp_path)
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, dict(restored), dict(variables))
    np.testing.assert_array_equal(apply(loaded, restored), apply(model, variables))


def test_describe_shards_its_parameters_by_its_own_rows(experiment):
    lines = {line.split()[0]: line.split() for line in describe(experiment, 8).splitlines() if line}
    assert lines["image_projection/kernel"][-3:-1] == ["embed", "-"]
    assert lines["token_embedding/table"][-3:-1] == ["vocab", "embed"]


@pytest.mark.slow
def test_it_trains_on_a_mesh_and_the_run_is_loaded_with_its_processor(experiment, tmp_path):
    folder = tmp_path / "run"
    jf.train(experiment, folder)
    model, variables = jf.from_pretrained(folder)
    assert isinstance(model, TwoTowers) and model.config == CONFIG
    chance = np.log(ROWS)
    assert (
        PairingLoss().evaluate(model, variables, None, final=True).metrics["dev_loss"]
        < 0.7 * chance
    )
    assert jf.load_text(folder / "model").vocab_size <= VOCABULARY
    assert jf.load_images(folder / "model").size == 16


@pytest.mark.slow
def test_it_is_planned(experiment):
    pod = local_pod(jax.devices()[:8], "v5e")
    planned = jf.plan(experiment, pod, mesh=MeshConfig(2, 2, 2))
    shapes = jax.eval_shape(lambda: Pairing().init(TwoTowers(CONFIG), jax.random.key(0)))
    padding = (48 - VOCABULARY) * CONFIG.image.width
    stored = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert planned.parameters == stored + padding
    assert planned.shapes[0].compiled.flops > 0


# ---------------------------------------------------------------- mistakes


def test_without_registration_the_error_says_how_to_register(experiment, monkeypatch, tmp_path):
    families = {k: v for k, v in registry._families.items() if k != "two_towers"}
    monkeypatch.setattr(registry, "_families", families)
    with pytest.raises(WeightsError, match=r"register its family with .*register_family"):
        jf.save_pretrained(TwoTowers(CONFIG), {}, tmp_path)
    with pytest.raises(ShardingError, match="no sharding row matches"):
        describe(experiment, 8)


def test_a_name_that_another_family_has_is_refused():
    with pytest.raises(ConfigError, match="the native name 'vit' of family 'vit'"):
        register_family(replace(TWO_TOWERS, name="towers", modules={"vit": TwoTowers}))
    with pytest.raises(ConfigError, match=r"the module .*ViT' of family 'vit'"):
        register_family(replace(TWO_TOWERS, name="towers", modules={"towers": ViT}))


def test_an_unknown_format_is_refused_with_the_closest_one(tmp_path):
    with pytest.raises(WeightsError, match=r"no format 'vit_ame': choose .*; did you mean vit_mae"):
        jf.save_pretrained(TwoTowers(CONFIG), {}, tmp_path, "vit_ame")
