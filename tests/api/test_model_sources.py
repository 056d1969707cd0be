"""Models by path are those that lie there now; models in memory are used like those by path."""

import os
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import bert_use as use
import text_folders
from etils import epath
from PIL import Image

import jaxformers as jf
from jaxformers.api import sources
from jaxformers.api.file_cache import file_state
from jaxformers.data import BundledMovies
from jaxformers.errors import ConfigError, DataError, UserError, WeightsError
from jaxformers.models.vit import ViT, ViTConfig
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.tasks import SequenceClassification
from jaxformers.training import run_directory

SENTENCES = ["Click the button.", "", "Open the file"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    folders = {name: use.folder(name, root / name) for name in use.FOLDERS}
    return folders | {"translation": text_folders.marian(root / "translation")}


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder with a ViT of three classes, and a picture."""
    folder = tmp_path_factory.mktemp("vit")
    model = ViT(ViTConfig(8, 4, width=8, heads=2, feed_forward=12, layers=2, classes=3))
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    jf.save_pretrained(model, variables, folder)
    write_preprocessing(jf.data.images.Preprocessing(8), folder)
    picture = np.random.RandomState(0).randint(0, 256, (9, 10, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    return folder


def in_memory(folder):
    return (*jf.from_pretrained(folder), jf.load_text(folder))


def shifted(variables):
    return jax.tree.map(
        lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), variables
    )


def refused(call, *args, kind=UserError, **options) -> str:
    with pytest.raises(kind) as raised:
        call(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- in memory


def test_every_use_of_text_takes_a_model_in_memory(folders):
    questions = tuple(zip(*use.QUESTIONS, strict=True))
    calls = [
        (jf.fill_mask, "words", [use.MASKED]),
        (jf.classify, "classes", [use.TEXTS]),
        (jf.answer, "spans", questions),
        (jf.translate, "translation", [SENTENCES]),
    ]
    for call, name, args in calls:
        assert call(in_memory(folders[name]), *args) == call(folders[name], *args), name
    vectors = jf.embed(in_memory(folders["encoder"]), use.TEXTS)
    np.testing.assert_array_equal(vectors, jf.embed(folders["encoder"], use.TEXTS))


@pytest.mark.slow
def test_every_use_of_images_takes_a_model_in_memory(vit):
    source, picture = (*jf.from_pretrained(vit), jf.load_images(vit)), str(vit / "picture.png")
    assert jf.classify_images(source, picture) == jf.classify_images(vit, picture)
    ours, by_path = jf.explain(source, picture), jf.explain(vit, picture)
    np.testing.assert_array_equal(ours.probabilities, by_path.probabilities)


def test_changed_variables_are_the_ones_that_answer(folders):
    model, variables, tokenizer = in_memory(folders["encoder"])
    before = jf.embed((model, variables, tokenizer), ["the baker"])
    after = jf.embed((model, shifted(variables), tokenizer), ["the baker"])
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda m, v, t: (m, v), ConfigError, "neither a path nor (model, variables, tokenizer)"),
        (lambda m, v, t: {"model": m}, ConfigError, "it is a dict"),
        (lambda m, v, t: (m, v["params"], t), WeightsError, 'no mapping with "params"'),
        (lambda m, v, t: (m, {"params": {}}, t), WeightsError, "missing"),
        (lambda m, v, t: (m, v, None), WeightsError, "has a NoneType as its tokenizer"),
    ],
)
def test_what_is_not_a_model_in_memory_is_refused_in_one_line(folders, change, kind, message):
    source = change(*in_memory(folders["encoder"]))
    assert message in refused(jf.embed, source, ["a"], kind=kind)


def test_an_image_model_in_memory_needs_its_preprocessing(vit):
    source = (*jf.from_pretrained(vit), None)
    assert "holds a NoneType" in refused(jf.classify_images, source, str(vit / "picture.png"))


@pytest.mark.parametrize("texts", [{"a": 1}, {"a"}, b"a", 7])
def test_texts_are_a_text_or_a_sequence_of_them(folders, texts):
    assert "a text or a list of texts" in refused(
        jf.embed, folders["encoder"], texts, kind=DataError
    )


# ---------------------------------------------------------------- what lies there now


def test_weights_saved_again_into_the_same_folder_answer(folders, tmp_path):
    model, variables, tokenizer = in_memory(folders["encoder"])
    jf.save_pretrained(model, variables, tmp_path, tokenizer=tokenizer)
    before = jf.embed(tmp_path, ["the baker"])
    jf.save_pretrained(model, shifted(variables), tmp_path, tokenizer=tokenizer)
    after = jf.embed(tmp_path, ["the baker"])
    expected = jf.embed((model, shifted(variables), tokenizer), ["the baker"])
    np.testing.assert_array_equal(after, expected)
    assert np.abs(after - before).max() > 0.1


def test_a_file_changed_in_place_to_the_same_size_and_time_answers(folders, tmp_path):
    folder = shutil.copytree(folders["encoder"], tmp_path / "encoder")
    file = folder / "model.safetensors"
    before, times = jf.embed(folder, ["the baker"]), os.stat(file)
    content = bytearray(file.read_bytes())
    content[-4000:] = bytes(4000)
    with file.open("r+b") as stream:
        stream.write(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert np.abs(jf.embed(folder, ["the baker"]) - before).max() > 1e-3


def test_another_vocabulary_and_another_pooling_are_read_again(folders, tmp_path):
    folder = shutil.copytree(folders["encoder"], tmp_path / "encoder")
    before = jf.embed(folder, ["the baker"])
    use.pooling(folder, "cls_token", normalize=True)
    pooled = jf.embed(folder, ["the baker"])
    assert np.linalg.norm(pooled) == pytest.approx(1, abs=1e-5) != np.linalg.norm(before)
    vocabulary = list(use.VOCABULARY)
    i, j = vocabulary.index("baker"), vocabulary.index("bank")
    vocabulary[i], vocabulary[j] = vocabulary[j], vocabulary[i]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    swapped = jf.embed(folder, ["the bank"])
    np.testing.assert_array_equal(swapped, pooled)


def test_a_relative_path_is_that_of_the_present_directory(folders, tmp_path, monkeypatch):
    model, variables, tokenizer = in_memory(folders["encoder"])
    for name, weights in (("one", variables), ("two", shifted(variables))):
        jf.save_pretrained(model, weights, tmp_path / name / "m", tokenizer=tokenizer)
    monkeypatch.chdir(tmp_path / "one")
    before = jf.embed("m", ["the baker"])
    monkeypatch.chdir(tmp_path / "two")
    after = jf.embed("m", ["the baker"])
    np.testing.assert_array_equal(after, jf.embed(tmp_path / "two" / "m", ["the baker"]))
    assert np.abs(after - before).max() > 0.1
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one" / "m")
    np.testing.assert_array_equal(jf.embed(link, ["the baker"]), before)
    link.unlink()
    link.symlink_to(tmp_path / "two" / "m")
    np.testing.assert_array_equal(jf.embed(link, ["the baker"]), after)


def test_a_run_that_was_exported_anew_answers(folders, tmp_path):
    model, variables, tokenizer = in_memory(folders["classes"])
    folder = epath.Path(tmp_path)
    task = SequenceClassification(model.config, BundledMovies(), length=use.POSITIONS)
    run_directory.write_experiment(folder, jf.Experiment("run", task, steps=2), main=True)
    tokenizer.save(run_directory.tokenizer_folder(folder))
    answers = []
    for step, weights in ((1, variables), (2, shifted(variables))):
        run_directory.export(folder, model, weights, tokenizer, step)
        answers.append(jf.embed(folder, ["the baker"]))
    assert np.abs(answers[1] - answers[0]).max() > 0.1


def test_what_has_not_changed_stays_loaded(folders, monkeypatch):
    jf.embed(folders["encoder"], ["a"])
    monkeypatch.setattr(sources, "from_pretrained", None)
    monkeypatch.setattr(sources, "load_text", None)
    assert len(jf.embed(folders["encoder"], ["a", "b"])) == 2


def test_a_newer_checkpoint_of_a_run_counts_and_its_logs_do_not(tmp_path):
    folder = epath.Path(tmp_path)
    (folder / run_directory.EXPERIMENT).write_text("{}")
    for step in ("100", "200"):
        before = file_state(folder)
        (folder / "metrics.jsonl").write_text(step)
        (folder / "status.json").write_text(step)
        assert file_state(folder) == before
        (folder / "checkpoints" / step).mkdir(parents=True)
        (folder / "checkpoints" / step / "manifest.json").write_text(step)
        assert file_state(folder) != before
