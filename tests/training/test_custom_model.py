"""A model of one's own from `jf.layers`, with sharding rows of its own, trains on eight devices."""

from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxformers.errors import ShardingError
from jaxformers.layers import (
    BlockConfig,
    EncoderBlock,
    EncoderStack,
    Linear,
    Norm,
    PositionEmbedding,
    TokenEmbedding,
)
from jaxformers.layers.convolution import Conv
from jaxformers.sharding import MeshConfig, Row, batch_multiple, make_mesh, put_batch
from jaxformers.tasks import Loss, Task, negative_log_likelihood
from jaxformers.training import Experiment
from jaxformers.training import Linear as LinearRate
from jaxformers.training.custom_model import sharded_update


class Tagger(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        x = EncoderStack(BlockConfig(16, 4, 32), 2, name="encoder")(x, train=train)
        return Linear((16,), (8,), name="tags")(x)


ROWS = (Row(r"tags/kernel", ("embed", "mlp")), Row(r"tags/bias", ("mlp",)))
RNG = np.random.default_rng(0)
BATCH = {"x": RNG.standard_normal((8, 6, 16), np.float32), "y": RNG.integers(0, 8, (8, 6))}
BATCH["y"] = BATCH["y"].astype(np.int32)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]


def losses_on(shape, rows=ROWS):
    # What a notebook holds: these lines and the eight of the model above.
    model, key = Tagger(), jax.random.key(0)
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: np.prod(shape)])

    def loss(params, batch):
        logits = model.apply({"params": params}, batch["x"])
        return negative_log_likelihood(logits, batch["y"]).mean()

    params, state, update = sharded_update(
        lambda: model.init(key, BATCH["x"])["params"], loss, optax.adam(1e-2), mesh, rows
    )
    losses = []
    for _ in range(8):
        params, state, value = update(params, state, put_batch(BATCH, mesh))
        losses.append(float(value))
    return losses, params, state


@pytest.fixture(scope="module")
def alone():
    return losses_on((1, 1, 1))[0]


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_it_trains_on_eight_devices_as_on_one(shape, alone):
    losses, params, state = losses_on(shape)
    np.testing.assert_allclose(losses, alone, rtol=1e-4)
    assert losses[-1] < 0.8 * losses[0]
    for leaf in (params["tags"]["kernel"], state[0].mu["tags"]["kernel"]):
        shares = {s.data.nbytes for s in leaf.addressable_shards}
        assert shares == {leaf.nbytes // (shape[1] * shape[2])}


def test_without_its_row_it_is_refused_with_the_row_to_add():
    with pytest.raises(ShardingError, match=r"'tags/kernel'; add one, such as Row\("):
        losses_on((1, 8, 1), rows=ROWS[1:])


BLOCK = BlockConfig(16, 4, 32, norm_position="pre")


class ImageTower(nn.Module):
    """Stacked blocks, with Flax's default names for the layers around them."""

    @nn.compact
    def __call__(self, images):
        x = Conv(3, 16, 4, 4, 0)(images).reshape(images.shape[0], -1, 16)
        return Norm("layer", 1e-6)(EncoderStack(BLOCK, 2, name="encoder")(x).mean(1))


class TextTower(nn.Module):
    """Blocks one by one, with names of its own."""

    def setup(self):
        self.word_embedding = TokenEmbedding(32, 16, std=0.02)
        self.position_embedding = PositionEmbedding(5, 16)
        self.blocks = [EncoderBlock(BLOCK) for _ in range(2)]
        self.ln_final = Norm("layer", 1e-6)

    def __call__(self, ids):
        x = self.word_embedding.embed(ids) + self.position_embedding.rows(5)
        for block in self.blocks:
            x = block(x)
        return self.ln_final(x[:, -1])


class TwoTowers(nn.Module):
    """Contrastive logits of every image with every text, as CLIP's."""

    @nn.compact
    def __call__(self, images, ids):
        image = Linear((16,), (8,), name="image_projection")(ImageTower(name="image")(images))
        text = Linear((16,), (8,), name="text_projection")(TextTower(name="text")(ids))
        return jnp.exp(self.param("logit_scale", nn.initializers.zeros, ())) * (image @ text.T)


PROJECTIONS = (
    Row(r"(image|text)_projection/kernel", ("embed", None)),
    Row(r"(image|text)_projection/bias", (None,)),
)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_two_towers_of_public_blocks_train_sharded_with_rows_for_their_projections_only(shape):
    model, rng = TwoTowers(), np.random.default_rng(1)
    images = rng.standard_normal((8, 8, 8, 3), np.float32)
    batch = {"images": images, "ids": rng.integers(0, 32, (8, 5)).astype(np.int32)}

    def loss(params, batch):
        logits = model.apply({"params": params}, batch["images"], batch["ids"])
        labels = jnp.arange(8, dtype=jnp.int32)
        across = negative_log_likelihood(logits, labels) + negative_log_likelihood(logits.T, labels)
        return across.mean() / 2

    def train(shape):
        mesh = make_mesh(MeshConfig(*shape), jax.devices()[: np.prod(shape)])
        params, state, update = sharded_update(
            lambda: model.init(jax.random.key(0), **batch)["params"],
            loss,
            optax.adam(1e-2),
            mesh,
            PROJECTIONS,
        )
        losses = []
        for _ in range(4):
            params, state, value = update(params, state, put_batch(batch, mesh))
            losses.append(float(value))
        return losses, params

    losses, params = train(shape)
    np.testing.assert_allclose(losses, train((1, 1, 1))[0], rtol=1e-4)
    assert losses[-1] < losses[0]
    for kernel in (
        params["image"]["encoder"]["blocks"]["feed_forward"]["up"]["kernel"],
        params["text"]["blocks_1"]["feed_forward"]["up"]["kernel"],
    ):
        shards = {s.data.nbytes for s in kernel.addressable_shards}
        assert shards == {kernel.nbytes // (shape[1] * shape[2])}


@dataclass(frozen=True)
class Tagging(Task):
    """The same as a task, for `train`, `check` and the rest."""

    tags: int = 8

    def module(self, execution):
        return Tagger()

    def batch_shapes(self):
        return ({k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in BATCH.items()},)

    def init(self, model, key):
        return model.init(key, jnp.zeros((batch_multiple(), 6, 16)))

    def loss(self, model, variables, batch, *, train=False, rngs=None):
        logits = model.apply(variables, batch["x"], train=train, rngs=rngs)
        losses = negative_log_likelihood(logits, batch["y"])
        return Loss(losses.sum(), jnp.float32(losses.size), {}, {})

    def rehearsal(self):
        return self


@pytest.mark.slow
def test_as_a_task_it_goes_through_the_library_and_its_check(tmp_path, monkeypatch):
    from jaxformers.runs import check as module
    from jaxformers.runs.check import check

    experiment = Experiment("tagging", Tagging(), 20, schedule=LinearRate(), sharding_rows=ROWS)
    lines = []
    quick = {name: module.PARTS[name] for name in ("sharding", "outputs")}
    monkeypatch.setattr(module, "PARTS", quick)
    findings = check(experiment, tmp_path / "own.py", update=True, report=lines.append)
    assert all(f.ok for f in findings), lines
    assert all(f.ok for f in check(experiment, tmp_path / "own.py", report=lines.append)), lines
    bare = replace(experiment, sharding_rows=ROWS[:1])
    findings = check(bare, tmp_path / "own.py", report=lines.append)
    assert not findings[0].ok and "'tags/bias'" in findings[0].text
