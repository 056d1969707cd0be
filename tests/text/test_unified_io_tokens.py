"""Unified-IO's tokens: ids as Hugging Face's T5Tokenizer gives them, locations as the authors'."""

import json
import lzma
import pickle
from pathlib import Path

import numpy as np
import pytest

from jaxformers.errors import DataError, UserError
from jaxformers.text import SentencePiece, load_tokenizer
from jaxformers.text.unified_io import (
    Segment,
    UnifiedIOTokenizer,
    bin_coordinates,
    box_text,
    coordinate_bins,
    key_points_text,
    nearest_colour,
    point_text,
    read_key_points,
    read_points,
    read_regions,
    read_segments,
    read_text,
    regions_text,
    segments_text,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = json.loads((FIXTURES / "unified_io_tokens.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    model = (FIXTURES / "unified_io_spiece.model.xz").read_bytes()
    return UnifiedIOTokenizer(lzma.decompress(model))


def test_texts_and_special_tokens_have_the_ids_of_t5_tokenizer(tokenizer):
    assert tokenizer.encode(GOLDEN["texts"]) == GOLDEN["ids"]


def test_t5s_sizes_give_the_published_ids(tokenizer):
    tokenizer = pickle.loads(pickle.dumps(tokenizer))
    shift = 32_000 - tokenizer.num_pieces
    assert tokenizer.sentinel_id(0) + shift == 33_099
    assert tokenizer.location_id(0) + shift == 32_999
    assert tokenizer.location_id(999) + shift == 32_000
    assert tokenizer.vocab_size % 128 == 0
    assert tokenizer.vocab_size > tokenizer.sentinel_id(0) + 1  # the last starts an image
    assert tokenizer.image_code_id(3) == tokenizer.image_start_id + 4


def test_every_location_id_is_its_bin_and_no_other_is_one(tokenizer):
    ids = [tokenizer.location_id(index) for index in range(1000)]
    assert [tokenizer.location_bin(i) for i in ids] == list(range(1000))
    assert tokenizer.location_bin(ids[0] + 1) is None
    assert tokenizer.location_bin(ids[-1] - 1) is None


def test_boxes_are_written_and_read_as_the_authors_do(tokenizer):
    for size, box, tokens, back in GOLDEN["boxes"]:
        text = regions_text([box], ["movie"], tuple(size))
        assert tokenizer.encode(text)[0] == tokens
        regions = read_regions(tokenizer, [*tokens, 1], tuple(size))
        np.testing.assert_allclose(regions.boxes[0], back, rtol=1e-12)
        assert regions.labels == ("movie",)
        assert regions.problems == ()


def test_key_points_are_read_as_the_authors_do(tokenizer):
    for tokens, points, visibility in GOLDEN["key_points"]:
        answer = read_key_points(tokenizer, tokens, (300, 200))
        np.testing.assert_allclose(answer.points, points, rtol=1e-12)
        assert answer.visibility.tolist() == visibility


def test_ten_thousand_boxes_come_back_within_a_bin(tokenizer):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5000, (10_000, 2))
    corners = np.sort(rng.random((10_000, 2, 2)), axis=1) * sizes[:, None, ::-1]
    corners[:100, 0], corners[100:200, 1] = 0, sizes[100:200, ::-1]  # the picture's borders
    for size, box in zip(sizes.tolist(), corners.reshape(-1, 4), strict=True):
        bins = coordinate_bins(box, size)
        back = bin_coordinates(bins, size)
        assert np.abs(back - box).max() <= max(size) / 999
    for size, box in zip(sizes[::50].tolist(), corners.reshape(-1, 4)[::50], strict=True):
        regions = read_regions(tokenizer, tokenizer.encode(box_text(box, size))[0], size)
        assert np.abs(regions.boxes[0] - box).max() <= max(size) / 999


@pytest.mark.parametrize("side", [1, 7, 64, 97, 256, 384, 480, 1023])
def test_a_bin_that_is_read_and_written_again_is_the_same_bin(side):
    bins = np.arange(1000)
    coordinates = bin_coordinates(bins, (side, 1))
    np.testing.assert_allclose(coordinates, (bins + 1) * side / 1000)  # read one bin further
    np.testing.assert_array_equal(coordinate_bins(coordinates, (1, side)), bins)


def test_bins_are_999ths_and_the_last_is_the_border_alone():
    assert coordinate_bins(
        [0.0, 1 / 999 - 1e-9, 1 / 999 + 1e-9, 0.99999, 1.0], (1, 1)
    ).tolist() == [
        0,
        0,
        1,
        998,
        999,
    ]
    assert coordinate_bins([-5, 70], (64, 32)).tolist() == [0, 999]  # clipped to the picture
    with pytest.raises(DataError, match="finite"):
        coordinate_bins([np.nan], (4, 4))
    with pytest.raises(DataError, match="0 x 4 pixels"):
        coordinate_bins([1.0], (0, 4))


def test_points_and_key_points_round_trip(tokenizer):
    rng = np.random.default_rng(0)
    points = rng.random((17, 2)) * (200, 300)
    levels = rng.integers(1, 3, 17)
    ids = tokenizer.encode(key_points_text(points, levels, (300, 200)))[0]
    answer = read_key_points(tokenizer, ids, (300, 200))
    assert np.abs(answer.points - points).max() <= 300 / 999
    assert answer.visibility.tolist() == levels.tolist()
    assert answer.problems == ()
    ids = tokenizer.encode(f"{point_text((10, 20), (40, 40))} movie")[0]
    one_point = read_points(tokenizer, ids, (40, 40))
    assert np.abs(one_point.points - (10, 20)).max() <= 40 / 999
    assert one_point.labels == ("movie",)


def test_malformed_answers_say_what_was_understood(tokenizer):
    def ids(text):
        return tokenizer.encode(text)[0]

    box = " ".join(f"<extra_id_{i}>" for i in (500, 600, 300, 400))
    answer = read_regions(tokenizer, ids(f"film {box} <extra_id_100> movie <extra_id_7>"), (10, 10))
    np.testing.assert_allclose(answer.boxes, [[3.01, 2.01, 5.01, 4.01]])
    assert answer.labels == ("movie",)
    assert answer.problems == (
        "1 ids that are neither text nor locations",
        "'film' without a location before it",
        "1 location tokens where 4 belong together",
        "1 boxes with their corners exchanged",
    )
    assert read_text(tokenizer, ids(f"a movie {box}")).problems == ("4 location tokens in a text",)
    assert read_key_points(tokenizer, ids("movie"), (9, 9)).problems[-1] == "no visible joint"
    empty = read_regions(tokenizer, [], (9, 9))
    assert (empty.boxes.shape, empty.labels, empty.problems) == ((0, 4), (), ())


def random_answers(tokenizer, count):
    """Rows of ids from everywhere: pieces, locations, sentinels, codes, none at all."""
    rng = np.random.default_rng(0)
    end = tokenizer.vocab_size
    for number in range(count):
        length = int(rng.integers(0, 40))
        low, high = [(-5, end + 500), (0, end), (tokenizer.location_id(999), end)][number % 3]
        row = rng.integers(low, high, length)
        if number % 2:  # fewer ends, so that more is read
            row[row == tokenizer.eos_id] = 0
        yield row


def check_random_answers(tokenizer, count):
    for row in random_answers(tokenizer, count):
        size = (48, 64)
        regions = read_regions(tokenizer, row, size)
        assert len(regions.boxes) == len(regions.labels)
        assert np.isfinite(regions.boxes).all()
        assert (regions.boxes[:, :2] <= regions.boxes[:, 2:]).all()
        points = read_points(tokenizer, row, size)
        assert len(points.points) == len(points.labels)
        joints = read_key_points(tokenizer, row, size)
        assert joints.points.shape == (17, 2)
        assert np.isfinite(joints.points).all()
        text = read_text(tokenizer, row).text
        assert isinstance(text, str)
        assert all(segment.label for segment in read_segments(text))


def test_random_answers_are_read_without_an_exception(tokenizer):
    check_random_answers(tokenizer, 300)


@pytest.mark.slow
def test_ten_thousand_random_answers_are_read_without_an_exception(tokenizer):
    check_random_answers(tokenizer, 10_000)


def test_colours_of_segments_round_trip():
    text = segments_text(["Sky", "a : b", "cat", "dog", "hut"])
    assert text == "sky : white , a : b : red , cat : lime , dog : blue , hut : white"
    assert read_segments(text)[0] == Segment("sky", "white", (255, 0, 0))  # as published
    assert read_segments(text)[1] == Segment("a : b", "red", (255, 0, 0))
    assert read_segments(text)[4] == Segment("hut", "white", (255, 255, 255))
    assert read_segments("cat : mauve , dog , ") == [
        Segment("cat", "mauve", None),
        Segment("dog", "", None),
    ]
    assert nearest_colour((250, 250, 240)) == "white"
    assert nearest_colour((200, 10, 30)) == "red"
    with pytest.raises(DataError, match="17 segments"):
        segments_text(["x"] * 17)


def test_the_folder_of_a_tokenizer_is_recognised_and_another_vocabulary_refused(
    tokenizer, tmp_path
):
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, UnifiedIOTokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.decode(loaded.encode("an old movie <extra_id_105>")) == ["an old movie"]
    foreign = tmp_path / "spiece.model"
    foreign.write_bytes(foreign.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"spiece\.model is not a SentencePiece model"):
        UnifiedIOTokenizer.load(tmp_path)
    with pytest.raises(UserError, match="no T5 vocabulary"):
        UnifiedIOTokenizer.load(tmp_path / "missing")


def test_a_trained_vocabulary_has_t5s_layout():
    sentences = ["a red apple left of a blue car", "two cats and three dogs on the grass"] * 5
    trained = UnifiedIOTokenizer.train(sentences, 29)
    assert trained.num_pieces == 29
    assert trained.vocab_size == 1152
    assert trained.decode(trained.encode("two red cats")) == ["two red cats"]
    assert isinstance(SentencePiece(trained.__getstate__()), SentencePiece)
