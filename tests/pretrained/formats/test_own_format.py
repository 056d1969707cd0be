"""Our own format keeps everything; the tokenizer's files go with the weights."""

import json

import fsspec
import jax
import numpy as np
import pytest
from etils import epath
from etils.epath import backend
from jax.sharding import AxisType
from marian_folders import random_variables, small

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.pretrained import load_pretrained, save_pretrained

CONFIG = TransformerConfig(
    vocab_size=13,
    width=12,
    heads=2,
    feed_forward=20,
    encoder_layers=2,
    decoder_layers=1,
    decoder_heads=3,
    norm_position="pre",
    norm_epsilon=1e-4,
    logits_bias=True,
    forced_eos_id=1,
    banned_ids=(3, 5),
    max_length=9,
    dropout=0.25,
)


def random_model(execution=Execution()):  # noqa: B008
    model = Transformer(CONFIG, execution)
    return model, random_variables(model)


def test_every_field_and_every_bit_comes_back(tmp_path):
    model, variables = random_model()
    save_pretrained(model, variables, tmp_path / "run", format="jaxformers")
    again, loaded = load_pretrained(tmp_path / "run")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.slow
def test_padding_of_the_vocabulary_is_left_out_and_put_back(tmp_path):
    model, variables = random_model(Execution(vocab_multiple=8))
    save_pretrained(model, variables, tmp_path / "run")
    for multiple, rows in ((1, 13), (8, 16), (5, 15)):
        _, loaded = load_pretrained(tmp_path / "run", Execution(vocab_multiple=multiple))
        table = loaded["params"]["token_embedding"]["table"]
        assert table.shape == (rows, 12) and loaded["params"]["logits_bias"].shape == (rows,)
        np.testing.assert_array_equal(
            table[:13], variables["params"]["token_embedding"]["table"][:13]
        )
        assert not np.any(table[13:])


def test_collections_that_are_no_weights_are_left_out(tmp_path):
    model, variables = random_model()
    save_pretrained(model, variables | {"probs": {"x": np.zeros(2)}}, tmp_path / "run")
    assert load_pretrained(tmp_path / "run")[1].keys() == {"params"}


def test_loading_works_inside_a_mesh(tmp_path):
    model, variables = random_model()
    save_pretrained(model, variables, tmp_path / "run")
    mesh = jax.make_mesh((8, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        load_pretrained(tmp_path / "run")


def test_saving_again_replaces_the_weights_and_keeps_other_files(tmp_path):
    model, variables = random_model()
    save_pretrained(model, variables, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    doubled = jax.tree.map(lambda x: 2 * x, variables)
    save_pretrained(model, doubled, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(tmp_path)[1], doubled)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "notes.txt",
    ]


@pytest.fixture
def bucket(monkeypatch):
    store = fsspec.filesystem("memory")
    store.store.clear()
    monkeypatch.setattr(type(backend.fsspec_backend), "fs", lambda self, path: store)
    yield epath.Path("gs://bucket/models/run")
    store.store.clear()
    store.pseudo_dirs[:] = [""]


def test_a_folder_in_a_bucket_works_like_one_on_disk(bucket):
    model, variables = random_model()
    for factor in (1, 2):
        changed = jax.tree.map(lambda x, f=factor: f * x, variables)
        save_pretrained(model, changed, bucket)
        again, loaded = load_pretrained(str(bucket))
        assert again == model
        jax.tree.map(np.testing.assert_array_equal, loaded, changed)
    assert sorted(f.name for f in bucket.iterdir()) == ["config.json", "model.safetensors"]
    assert [f.name for f in bucket.parent.iterdir()] == ["run"]


@pytest.mark.parametrize("format", ["marian", "jaxformers"])
def test_tokenizer_files_go_along(format, tmp_path):
    folder = small(tmp_path / "theirs")
    files = {"source.spm": b"s", "target.spm": b"t", "vocab.json": b"{}", "secret.txt": b"no"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format, tokenizer=folder)
    assert (tmp_path / "ours" / "source.spm").read_bytes() == b"s"
    assert (tmp_path / "ours" / "vocab.json").read_bytes() == b"{}"
    assert not (tmp_path / "ours" / "secret.txt").exists()


@pytest.mark.default_cases(4)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(family="transfomer"), "no family named 'transfomer'"),
        (lambda c: c["config"].update(widht=3), "no field 'widht'; did you mean width"),
        (lambda c: c["config"].update(width="12"), "width is '12', not int"),
        (lambda c: c["config"].update(activation="sine"), "activation is 'sine'"),
        (lambda c: c["config"].update(heads=5), "5 heads do not divide"),
        (lambda c: c["config"].update(banned_ids=["a"]), "banned_ids is ('a',)"),
        (lambda c: c.update(config=[]), "no configuration"),
        (lambda c: c["config"].update(width=24), "misshapen"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_field(change, message, tmp_path):
    save_pretrained(*random_model(), tmp_path)
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError) as caught:
        load_pretrained(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)
