"""Every use of text gives the same on a mesh as on one device, whatever the number of texts."""

import math
import sys
from itertools import chain
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))


import bert_use as use
import text_folders

import jaxformers as jf
from jaxformers.sharding import MeshConfig, make_mesh

COUNTS = [33, 1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("mesh")
    folders = {name: use.folder(name, root / name) for name in use.FOLDERS}
    return folders | {"translation": text_folders.marian(root / "translation")}


def on_mesh(call, *args, shape=(2, 1, 1), **options):
    mesh = make_mesh(MeshConfig(*shape), jax.devices()[: math.prod(shape)])
    with jax.set_mesh(mesh):
        return call(*args, **options)


def texts(count: int, text: str) -> list[str]:
    return [f"{text}{' a' * (n % 7)}" for n in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 1, 1)])
def test_vectors(folders, count, shape):
    inputs = texts(count, "the baker")
    vectors = on_mesh(jf.embed, folders["encoder"], inputs, shape=shape)
    np.testing.assert_allclose(vectors, jf.embed(folders["encoder"], inputs), atol=2e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("count", COUNTS)
def test_masked_words(folders, count):
    inputs = texts(count, "the [MASK] is [MASK]")
    words = on_mesh(jf.fill_mask, folders["words"], inputs, top=2)
    expected = jf.fill_mask(folders["words"], inputs, top=2)
    for ours, theirs in zip(chain(*words), chain(*expected), strict=True):
        assert [word for word, _ in ours] == [word for word, _ in theirs]
        np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], atol=1e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("count", COUNTS)
def test_classes(folders, count):
    inputs = texts(count, "the film is good")
    classes = on_mesh(jf.classify, folders["classes"], inputs)
    for (label, share), (their_label, their_share) in zip(
        classes, jf.classify(folders["classes"], inputs), strict=True
    ):
        assert label == their_label and share == pytest.approx(their_share, abs=1e-5)


@pytest.mark.slow
def test_answers_and_translations(folders):
    questions = ["Who left?"] * 3
    answers = on_mesh(jf.answer, folders["spans"], questions, "The baker left at noon.")
    expected = jf.answer(folders["spans"], questions, "The baker left at noon.")
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    sentences = ["Click the button.", "Open", "Close it"]
    translations = on_mesh(jf.translate, folders["translation"], sentences)
    assert translations == jf.translate(folders["translation"], sentences)
