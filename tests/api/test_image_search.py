"""`jf.search` and its verb: the nearest pictures, exactly, by an index that follows the files."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import clip_cases as cases
import clip_use as use
from folders import write

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.tasks import Processor
from jaxformers.tasks.image_text import image_index
from jaxformers.tasks.image_text.search import nearest_rows
from jaxformers.tasks.image_text.zero_shot import unit_vectors
from jaxformers.text import CLIPTokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return use.folder(tmp_path_factory.mktemp("search") / "clip")


@pytest.fixture(scope="module")
def golden():
    return np.load(use.GOLDEN)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    """Three pictures, the last in a folder below, beside a damaged one and a file of text."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name, picture in zip(("0.png", "1.PNG", "below/2.png"), use.pictures(), strict=True):
        Image.fromarray(picture).save(folder / name)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def embedded(monkeypatch) -> list[str]:
    """The names of the pictures that are read from now on."""
    names = []
    from jaxformers.api import image_search as api

    embed = api.embed_readable

    def counted(model, variables, preprocessing, paths):
        names.extend(os.path.basename(path) for path in paths)
        return embed(model, variables, preprocessing, paths)

    monkeypatch.setattr(api, "embed_readable", counted)
    return names


def refused(kind, call, *args, **options) -> str:
    with pytest.raises(kind) as raised:
        call(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_hits_are_ordered_by_hugging_faces_cosines(clip, golden, photos, tmp_path):
    images, texts = unit_vectors(golden["images"]), unit_vectors(golden["texts"])
    result = jf.search(clip, list(use.TEXTS), photos, index=tmp_path / "index", truncate=True)
    names = ["0.png", "1.PNG", "below/2.png"]
    for hits, text in zip(result.hits, texts, strict=True):
        cosines = images @ text
        order = np.argsort(-cosines)
        assert [hit.path for hit in hits] == [str(photos / names[i]) for i in order]
        np.testing.assert_allclose([hit.score for hit in hits], cosines[order], atol=1e-5)
    assert result.searched == 3 and result.damaged == (str(photos / "damaged.jpg"),)


def test_a_picture_finds_itself_whatever_it_is_given_as(clip, photos, tmp_path):
    path = photos / "below" / "2.png"
    with Image.open(path) as image:
        queries = [path, str(path), path.read_bytes(), image, np.asarray(image)]
    result = jf.search(clip, queries, photos, top=1, index=tmp_path / "index")
    for ((name, score),) in result.hits:
        assert name == str(path) and score == pytest.approx(1, abs=1e-5)
    mixed = jf.search(clip, ["a dog", path, "a cat"], photos, top=1, index=tmp_path / "index")
    alone = jf.search(clip, "a cat", photos, top=1)
    for hit, expected in ((mixed.hits[1], result.hits[0]), (mixed.hits[2], alone.hits[0])):
        assert hit[0].path == expected[0].path
        assert hit[0].score == pytest.approx(expected[0].score, abs=1e-6)


def test_the_index_follows_the_files(clip, photos, tmp_path, monkeypatch):
    index, read = tmp_path / "index", embedded(monkeypatch)
    jf.search(clip, "a", photos, index=index)
    assert sorted(read) == ["0.png", "1.PNG", "2.png", "damaged.jpg"]
    read.clear()
    before = jf.search(clip, "a", photos, index=index)
    assert read == []  # damaged pictures are not tried again either
    (photos / "0.png").unlink()
    Image.fromarray(use.pictures()[0]).save(photos / "1.PNG")  # other content under an old name
    Image.fromarray(use.pictures()[1]).save(photos / "new.png")
    Image.fromarray(use.pictures()[2]).save(photos / "damaged.jpg")
    after = jf.search(clip, "a", photos, index=index)
    assert sorted(read) == ["1.PNG", "damaged.jpg", "new.png"] and after.damaged == ()
    scores = {os.path.basename(path): score for path, score in before.hits[0]}
    assert [score for path, score in after.hits[0] if path.endswith("1.PNG")] == [
        pytest.approx(scores["0.png"], abs=1e-6)
    ]
    assert not any(path.endswith("0.png") for path, _ in after.hits[0])


def test_other_weights_or_preprocessing_read_all_pictures_again(
    clip, photos, tmp_path, monkeypatch
):
    index, read = tmp_path / "index", embedded(monkeypatch)
    jf.search(clip, "a", photos, index=index)
    other_folder = shutil.copytree(clip, tmp_path / "other")
    config = other_folder / "preprocessor_config.json"
    config.write_text(config.read_text().replace("{", '{"resample": 0, ', 1))
    first = jf.search(other_folder, "a", photos, index=index)
    assert len(read) == 8
    model, variables = jf.from_pretrained(clip)
    params = variables["params"]
    bias = params["image"]["pre_norm"]["bias"]
    image = params["image"] | {"pre_norm": params["image"]["pre_norm"] | {"bias": bias + 1}}
    processor = Processor(CLIPTokenizer(), jf.load_images(clip))
    source = (model, {"params": params | {"image": image}}, processor)
    changed = jf.search(source, "a", photos, index=index)
    assert len(read) == 12
    assert len({result.hits[0][0].score for result in (first, changed)}) == 2
    # The text tower does not count: its weights give no vectors of pictures.
    source = (model, {"params": source[1]["params"] | {"logit_scale": np.float32(0)}}, processor)
    assert jf.search(source, "a", photos, index=index).hits == changed.hits and len(read) == 12


def test_a_search_that_was_cut_off_goes_on(clip, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(image_index, "CHUNK", 1)
    index, read = tmp_path / "index", embedded(monkeypatch)

    def interrupt(count, total):
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jf.search(clip, "a", photos, index=index, progress=interrupt)
    assert read == ["0.png", "1.PNG"]
    counts = []
    result = jf.search(clip, "a", photos, index=index, progress=lambda *pair: counts.append(pair))
    assert read == ["0.png", "1.PNG", "2.png", "damaged.jpg"] and counts == [(1, 2), (2, 2)]
    monkeypatch.setattr(image_index, "CHUNK", 512)
    anew = jf.search(clip, "a", photos, index=tmp_path / "anew")
    for ours, theirs in zip(result.hits[0], anew.hits[0], strict=True):
        assert ours.path == theirs.path and ours.score == pytest.approx(theirs.score, abs=1e-6)


def test_damaged_files_of_the_index_are_written_anew(clip, photos, tmp_path, monkeypatch):
    index, read = tmp_path / "index", embedded(monkeypatch)
    hits = jf.search(clip, "a", photos, index=index).hits
    (file,) = index.glob("*.safetensors")
    for content in (b"", file.read_bytes()[:-7], b"\xff" * 64):
        read.clear()
        (file,) = index.glob("*.safetensors")
        file.write_bytes(content)
        (index / "mine.txt").write_text("what else lies there stays")
        assert jf.search(clip, "a", photos, index=index).hits == hits and len(read) == 4
    assert (index / "mine.txt").exists()


def test_an_index_does_not_grow_with_changes(clip, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(image_index, "SLACK", 1)
    index = tmp_path / "index"
    for number in range(6):
        Image.fromarray(use.pictures()[number % 3]).save(photos / "0.png")
        hits = jf.search(clip, "a", photos, index=index).hits
    assert len(list(index.glob("*.safetensors"))) <= 2
    anew = dict(jf.search(clip, "a", photos, index=tmp_path / "anew").hits[0])
    assert dict(hits[0]) == pytest.approx(anew, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_nearest_rows_are_the_first_of_the_greatest(rows):
    rng = np.random.default_rng(rows)
    vectors = rng.integers(-2, 3, (rows, 4)).astype(np.float32)  # many ties
    queries = rng.integers(-2, 3, (130, 4)).astype(np.float32)
    top = min(rows, 9)
    scores, indices = nearest_rows(vectors, queries, top)
    order = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(queries @ vectors.T, order, 1))


def test_faiss_gives_the_same_scores():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (5000, 40))
    ours, theirs = (nearest_rows(vectors, queries, 10, faiss_from=n) for n in (10**6, 1))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)
    np.testing.assert_array_equal(ours[1], theirs[1])


def test_the_verb_prints_the_hits_and_draws_them(clip, photos, tmp_path, capsys):
    output = tmp_path / "hits.png"
    words = ["search", str(clip), "a dog", str(photos), "--top", "2", "--output", str(output)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    hits = jf.search(clip, "a dog", photos, top=2).hits[0]
    assert out.splitlines() == [
        *(f"{path}\t{score:.4f}" for path, score in hits),
        f"wrote {output}",
    ]
    assert "skipped 1 of 4 pictures" in err and "damaged.jpg" in err
    with Image.open(output) as image:
        assert image.size[0] > 300
    picture = str(photos / "1.PNG")
    assert main(["search", str(clip), picture, str(photos), "--index", str(tmp_path / "i")]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}\t1.0000")


def test_what_cannot_be_searched_is_refused_in_one_line(clip, photos, tmp_path, capsys):
    (empty := tmp_path / "empty").mkdir()
    assert "holds no image" in refused(DataError, jf.search, clip, "a", empty)
    (empty / "a.heic").write_bytes(b"")
    assert "passed over: 1 .heic" in refused(DataError, jf.search, clip, "a", empty)
    (empty / "a.png").write_bytes(b"")
    assert "none of the 1 pictures decodes" in refused(DataError, jf.search, clip, "a", empty)
    assert "is no folder" in refused(DataError, jf.search, clip, "a", photos / "0.png")
    assert "is no folder" in refused(DataError, jf.search, clip, "a", tmp_path / "none")
    for folder in (None, ["photos"], ""):
        assert "is no folder" in refused(DataError, jf.search, clip, "a", folder)
    assert "no picture cat.png" in refused(DataError, jf.search, clip, "cat.png", photos)
    assert "no query" in refused(DataError, jf.search, clip, [], photos)
    assert "the model takes 75" in refused(DataError, jf.search, clip, use.LONG, photos)
    assert "top" in refused(ConfigError, jf.search, clip, "a", photos, top=0)
    in_the_way = photos / "notes.txt"
    assert "cannot be written" in refused(DataError, jf.search, clip, "a", photos, index=in_the_way)
    for words in (
        ["search", str(clip), "a", str(tmp_path / "none")],
        ["search", str(clip), "a", str(photos), "--top", "0"],
        ["search", str(clip), "a", str(photos), "--output", "hits.txt"],
        ["search", str(clip), "a"],
        ["search", str(clip), " ", str(photos)],
        ["search", str(clip), "a", ""],
        ["embed-images", str(clip), ""],
        ["zero-shot", str(clip), str(photos), "--name", ""],
        ["explain", str(clip), "--image", str(photos / "0.png"), "--text", ""],
    ):
        assert main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 9


def test_a_tower_of_images_is_searched_by_pictures_alone(clip, photos, tmp_path):
    tensors = {k: v for k, v in use.tensors().items() if k.startswith(("vision_", "visual_"))}
    config = use.CONFIG["vision_config"]
    architecture = {"architectures": cases.CASES["clip_vision_projection"]["architectures"]}
    folder = write(tmp_path / "tower", config | architecture, tensors)
    shutil.copy(clip / "preprocessor_config.json", folder)
    picture = photos / "0.png"
    ((path, score),) = jf.search(folder, picture, photos, top=1).hits[0]
    assert path == str(picture) and score == pytest.approx(1, abs=1e-5)
    assert "without a text tower" in refused(WeightsError, jf.search, folder, "a dog", photos)
