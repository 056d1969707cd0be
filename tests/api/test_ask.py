"""Unified-IO asked by prompts and by the names of its tasks, on a tiny random model."""

from copy import copy
from dataclasses import replace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import jaxformers as jf
from jaxformers.api.ask import Asked
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.sharding import MeshConfig, make_mesh
from jaxformers.tasks.text_image import Prediction, inference
from jaxformers.tasks.text_image.prompts import check_prompt
from jaxformers.text.unified_io import KeyPoints, Regions
from tests.helpers.unified_io import source as tiny_source

BOX = (2.0, 3.0, 12.0, 20.0)


@pytest.fixture(scope="module")
def source():
    return tiny_source()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


def test_a_text_is_answered_for_one_picture_several_or_none(source, picture, tmp_path):
    single = jf.ask(source, "What is this ?", picture, max_tokens=6)
    assert isinstance(single.text, str)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    several = jf.ask(source, "What is this ?", [path, Image.fromarray(picture)], max_tokens=6)
    assert [answer.text for answer in several] == [single.text, single.text]
    assert isinstance(jf.ask(source, "What is this ?", max_tokens=6).text, str)
    assert isinstance(single.figure(), Figure)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("count", [17, 3])
def test_any_number_of_pictures_is_answered_on_a_mesh_too(source, picture, count):
    pictures = [np.roll(picture, number, axis=1) for number in range(count)]
    answers = jf.ask(source, "What ?", pictures, max_tokens=2)
    assert len(answers) == count
    assert answers[-1].text == jf.ask(source, "What ?", pictures[-1], max_tokens=2).text
    with jax.set_mesh(make_mesh(MeshConfig(2, 1, 1), jax.devices()[:2])):
        on_mesh = jf.ask(source, "What ?", pictures, max_tokens=2)
    assert [answer.text for answer in on_mesh] == [answer.text for answer in answers]


@pytest.mark.slow
def test_pictures_come_in_the_size_of_the_input(source, picture):
    answer = jf.depth(source, picture)
    assert answer.picture.shape == picture.shape
    np.testing.assert_array_equal(jf.depth(source, picture).picture, answer.picture)
    assert jf.inpaint(source, picture, BOX, "bus").picture.shape == picture.shape
    assert jf.paint(source, "a red bus").picture.shape == (4, 4, 3)
    mask = np.ones(picture.shape[:2], bool)
    assert jf.paint(source, segments=[("bus", mask)]).picture.shape == picture.shape
    masks = jf.segment(source, [picture], "bus")[0].masks
    assert all(mask.shape == picture.shape[:2] for mask in masks)
    assert isinstance(answer.figure(), Figure)


@pytest.mark.parametrize("side", [8, 512])
def test_specks_are_dropped_from_masks_in_the_square_that_was_decoded(source, monkeypatch, side):
    square = np.zeros((256, 256, 3), np.uint8)
    square[64:128, 64:128] = 255  # an object
    square[200:202, 200:202] = (255, 0, 0)  # a speck
    predictions = [Prediction(picture=square)]
    monkeypatch.setattr(inference, "_predict", lambda *arguments: predictions)
    answer = jf.segment(source, np.zeros((side, side, 3), np.uint8), "bus")
    expected = np.zeros((side, side), bool)
    expected[side // 4 : side // 2, side // 4 : side // 2] = True
    assert answer.picture.shape == (side, side, 3)
    np.testing.assert_array_equal(answer.masks, [expected])


def test_regions_and_joints_are_read_from_whatever_is_answered(source, picture):
    regions = jf.detect(source, picture).regions
    assert regions.boxes.shape == (len(regions.labels), 4)
    assert jf.locate(source, picture, "bus").regions is not None
    joints = jf.keypoints(source, picture, BOX)
    assert joints.key_points.points.shape == (17, 2)
    assert joints.problems
    assert isinstance(joints.figure(), Figure)
    assert jf.answer_about(source, picture, "How many ?").prompt == "how many ?"


def test_boxes_masks_and_joints_are_drawn_on_the_picture(picture):
    masks = np.zeros((2, *picture.shape[:2]), bool)
    masks[0, 2:8, 3:9], masks[1, 10:20, 12:30] = True, True
    regions = Regions(np.array([[3.0, 2, 9, 8], [12, 10, 30, 20]]), ("$cat$", "bus"))
    joints = KeyPoints(np.tile([[5.0, 6.0]], (17, 1)), np.array([2] * 5 + [0] * 12))
    answer = Asked("What ?", picture, None, picture, regions, joints, tuple(masks))
    figure = answer.figure()
    first, second = figure.axes
    layers = [np.asarray(image.get_array()) for image in first.images]
    assert len(layers) == 3 and len(second.images) == 1
    for mask, layer in zip(masks, layers[1:], strict=True):
        np.testing.assert_array_equal(layer[..., 3] > 0, mask)
    assert [patch.get_xy() for patch in first.patches] == [(3, 2), (12, 10)]
    assert [text.get_text() for text in first.texts] == ["$cat$", "bus"]
    assert len(first.collections[0].get_offsets()) == 5
    caption = Asked("\u4e2d" * 20_000, picture, "a").figure().get_suptitle()
    assert len(caption) < 500 and caption.endswith("\na")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "either a text or segments"),
        ({"text": "a", "segments": [("a", np.ones((2, 2)))]}, ConfigError, "exactly one"),
        ({"segments": []}, DataError, "0 segments"),
        ({"segments": [("a", np.ones((2, 2)))] * 17}, DataError, "17 segments"),
        ({"segments": [("a", np.ones((2, 2))), ("b", np.ones((2, 3)))]}, DataError, "all the same"),
        ({"segments": [("a", np.ones((2, 2, 1)))]}, DataError, r"same \[H, W\]"),
        ({"segments": 5}, DataError, "pairs of a label and its mask"),
        ({"segments": {"cat": np.ones((2, 2))}}, DataError, "pairs of a label and its mask"),
        ({"segments": [("a",)]}, DataError, "pairs of a label and its mask"),
        ({"segments": [("a", [[1, 0], [1]])]}, DataError, "pairs of a label and its mask"),
        ({"segments": [(5, np.ones((2, 2)))]}, DataError, "label is a int, not a text"),
    ],
)
def test_what_cannot_be_painted_is_refused(source, arguments, error, message):
    with pytest.raises(error, match=message):
        jf.paint(source, **arguments)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((1, 2, 3), "not four finite numbers"),
        ("abcd", "the box abcd is not four finite numbers"),
        (5, "not four finite numbers"),
        ([[0, 0, 5, 5]], "not four finite numbers"),
        ((1, 2, (3, 4), 5), "not four finite numbers"),
        (("0", "0", "5", "5"), "not four finite numbers"),
        ((2, 3, 12, float("nan")), "not four finite numbers"),
        ((2, 3, float("inf"), 4), "not four finite numbers"),
        ((5, 5, 0, 0), "the box 5 5 0 0 is empty"),
        ((40, 2, 50, 9), "the box 40 2 50 9 is outside the picture of 32 x 24 pixels"),
        ((-9, 2, 0, 9), "is outside the picture"),
    ],
)
def test_boxes_that_are_none_in_the_picture_are_refused(source, picture, box, message):
    with pytest.raises(DataError, match=message):
        jf.keypoints(source, picture, box)
    with pytest.raises(DataError, match=message):
        jf.inpaint(source, picture, box, "bus")
    with pytest.raises(DataError, match=message):
        jf.ask(source, "What ?", picture, hidden=box)


def test_a_hidden_box_without_a_picture_is_refused(source):
    with pytest.raises(DataError, match="a box lies in a picture: give one"):
        jf.ask(source, "What ?", hidden=BOX)


@pytest.mark.parametrize("value", [None, 5, b"", ["a"]])
def test_what_is_no_text_is_refused(source, picture, value):
    with pytest.raises(DataError, match=r"prompt is a .*, not a text"):
        jf.ask(source, value, picture)
    with pytest.raises(DataError, match=r"question is a .*, not a text"):
        jf.answer_about(source, picture, value)
    for function in (jf.locate, jf.segment):
        with pytest.raises(DataError, match=r"name is a .*, not a text"):
            function(source, picture, value)
    with pytest.raises(DataError, match=r"label is a .*, not a text"):
        jf.inpaint(source, picture, BOX, value)
    if value is not None:
        with pytest.raises(DataError, match=r"prompt is a .*, not a text"):
            jf.explain(source, picture, prompt=value)
        with pytest.raises(DataError, match=r"text is a .*, not a text"):
            jf.paint(source, value)


def test_a_picture_of_floating_point_numbers_is_refused(source, tmp_path):
    path = tmp_path / "a.tiff"
    Image.fromarray(np.zeros((8, 8), np.float32)).save(path)
    message = "picture 1 does not decode: its pixels are floating-point numbers"
    with pytest.raises(DataError, match=message):
        jf.ask(source, "What ?", path)
    with pytest.raises(DataError, match=message):
        jf.explain(source, path, prompt="What ?")


@pytest.mark.parametrize(
    "options",
    [
        *({"seed": seed} for seed in (-1, 2**32, "a", 1.5, None)),
        *({"max_tokens": count} for count in (0, 1.5, "5", None)),
        {"beams": 0},
        {"top_p": 0.0},
    ],
)
def test_numbers_out_of_their_range_are_refused(source, options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"Decoding: {name} is .*; it is "):
        jf.ask(source, "What ?", **options)


def test_what_cannot_be_asked_is_refused_in_one_line(source, picture):
    for output in ("sound", "Image", None):
        with pytest.raises(ConfigError, match=f"output is {output!r}, not one of text, image"):
            jf.ask(source, "What does the image describe ?", picture, output)
    with pytest.raises(DataError, match="asks about a picture: give one"):
        jf.caption(source, None)
    with pytest.raises(DataError, match="the box 12 3 2 20 is empty"):
        jf.keypoints(source, picture, (12, 3, 2, 20))
    with pytest.raises(DataError, match="picture 2 is NoneType, not a path"):
        jf.caption(source, [picture, None])
    with pytest.raises(DataError, match="the model has 96 positions: shorten it"):
        jf.ask(source, "what " * 40, picture)
    with pytest.raises(WeightsError, match="not T5's SentencePiece"):
        jf.ask((*source[:2], object()), "What ?", picture)
    with pytest.raises(DataError, match="no picture: give one, or several"):
        jf.ask(source, "What ?", [])
    with pytest.raises(WeightsError, match="the tokenizer has 5,000 ids, the model"):
        large = copy(source[2].tokenizer)
        large.vocab_size = 5000
        jf.ask((*source[:2], large), "What ?", picture)
    with pytest.raises(WeightsError, match="holds a ViT; this needs a UnifiedIO"):
        vit = jf.ViT(jf.ViTConfig(image_size=8, patch_size=4, width=8, heads=2, layers=1))
        shapes = jax.eval_shape(vit.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
        variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
        jf.ask((vit, variables, source[2]), "What ?", picture)


@pytest.mark.parametrize(
    ("prompt", "has_image", "output", "message"),
    [
        ("What does the image describe ?", False, "text", "Captioning is about a picture: give"),
        ("What does the image describe ?", True, "image", "Captioning is answered by a text"),
        ("What is the depth map of the image ?", True, "text", "Depth is answered by a picture"),
        ("What is the depth map of the image ?", False, "image", "Depth is about a picture"),
        ('What is the segmentation of " cat " ?', True, "text", "is answered by a picture"),
        ("sentence: it is fine", False, "image", "TextClassification is answered by a text"),
        ("sentence: it is fine", True, "text", "TextClassification takes no picture"),
        ("summarize: a long text", False, "image", "Summarisation is answered by a text"),
        ("What objects are in the image?", True, "image", "Detection is answered by a text"),
    ],
)
def test_prompts_of_tasks_with_another_input_or_answer_are_refused(
    source, picture, prompt, has_image, output, message
):
    with pytest.raises((ConfigError, DataError), match=message):
        jf.ask(source, prompt, picture if has_image else None, output)


def test_free_prompts_and_those_of_two_tasks_are_left_alone():
    for output in ("text", "image"):
        for has_image in (False, True):
            check_prompt("what colour is the cat ?", has_image, output)
    check_prompt('What is the complete image? Text: " a bus " .', False, "image")
    check_prompt('What is the complete image? Text: " a bus " .', True, "image")


def test_a_model_without_an_image_tokenizer_answers_in_text(source, picture):
    model, variables, processor = source
    plain = model.clone(config=replace(model.config, image_tokenizer=None))
    params = {k: v for k, v in variables["params"].items() if k != "image_tokenizer"}
    text_only = (plain, {"params": params}, processor)
    expected = jf.ask(source, "What is this ?", picture, max_tokens=6)
    assert jf.ask(text_only, "What is this ?", picture, max_tokens=6).text == expected.text
    with pytest.raises(ConfigError, match="no image tokenizer, so its answers are texts"):
        jf.ask(text_only, "What is this ?", picture, "image")


def test_the_verb_prints_what_of_an_answer_was_not_understood(monkeypatch, capsys):
    answer = Asked("What ?", text="a cat", problems=("2 location tokens in a text",))
    monkeypatch.setattr(jf.api, "ask", lambda *args, **options: answer)
    assert main(["ask", "folder", "What ?"]) == 0
    out, err = capsys.readouterr()
    assert out == "a cat\n"
    assert err == "jaxformers: not understood: 2 location tokens in a text\n"


UNWRITABLE = {
    "a.xbm": "is no kind of picture",
    "a.h5": "is no kind of picture",
    "folder.png": "folder.png cannot be written: it is a folder",
    "none/a.png": "a.png cannot be written: there is no folder",
}


def test_a_picture_that_cannot_be_written_is_one_line(monkeypatch, capsys):
    answer = Asked("What ?", picture=np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(jf.api, "ask", lambda *args, **options: answer)
    assert main(["ask", "folder", "What ?", "--output", "/proc/a.png"]) == 2
    error = capsys.readouterr().err
    assert "--output: /proc/a.png cannot be written: " in error and error.count("\n") == 1


def test_the_verb_refuses_what_cannot_be_asked_with_status_2(tmp_path, capsys):
    missing = str(tmp_path / "missing")
    assert main(["ask", missing, "What ?", "--output", str(tmp_path / "a.txt")]) == 2
    assert "a.txt is no kind of picture: name a .png" in capsys.readouterr().err
    assert main(["ask", missing, "What ?", "--output", "a.svg"]) == 2
    assert "a.svg is no kind of picture" in capsys.readouterr().err
    for name, message in UNWRITABLE.items():
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        assert main(["ask", missing, "What ?", "--output", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["ask", missing, "What ?", "--beams", "0"]) == 2
    assert "--beams: 0 is not at least 1" in capsys.readouterr().err
    assert main(["ask", missing, "What ?", "--seed", "-1"]) == 2
    assert "seed is -1; it is a whole number" in capsys.readouterr().err
    assert main(["ask", missing, "What ?"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
