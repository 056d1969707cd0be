"""Probes of frozen features of a folder of pictures, by function and by verb."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import clip_use as use

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError
from jaxformers.evaluation.probes.linear_probe import clip_linear_probe
from jaxformers.evaluation.probes.standardized_probe import Split
from jaxformers.sharding import MeshConfig, make_mesh


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return use.folder(tmp_path_factory.mktemp("probe") / "clip")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("dev", 2), ("test", 3), ("train", 4)):
        for channel, name in enumerate(("blue", "green")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (30, 30, 3)).astype(np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
def test_the_linear_probe_is_that_of_the_vectors(clip, pictures, capsys):
    def features(split):
        paths = [
            p for name in ("blue", "green") for p in sorted((pictures / split / name).iterdir())
        ]
        labels = np.repeat([0, 1], len(paths) // 2)
        return Split(jf.embed_images(clip, list(map(str, paths))), labels)

    expected = clip_linear_probe(*map(features, ("train", "dev", "test")))
    # One of the emulated devices: their collectives take most of the time.
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        metrics = jf.probe(clip, pictures, projected=True)
    assert metrics["test_linear_probe_top1"] == pytest.approx(expected.accuracy)
    assert metrics["linear_probe_penalty"] == pytest.approx(expected.penalty)
    assert main(["probe", str(clip), str(pictures), "--method", "neighbours"]) == 0
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["test_knn_top1", "test_knn_mean_per_class", "dev_knn_top1", "knn_neighbours"]


def test_missing_sets_are_refused(clip, pictures, tmp_path, capsys):
    with pytest.raises(ConfigError, match="neither"):
        jf.probe(clip, pictures, method="forest")
    with pytest.raises(ConfigError, match="normalize is of the linear classifier"):
        jf.probe(clip, pictures, method="neighbours", normalize=True)
    for data in (3, ""):
        with pytest.raises(DataError, match="is no labelled images"):
            jf.probe(clip, data)
    with pytest.raises(ConfigError, match="no test images"):
        jf.probe(clip, pictures / "train")
    assert main(["probe", str(clip), str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
