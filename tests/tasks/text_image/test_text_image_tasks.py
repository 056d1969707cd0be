"""Tasks on text and images: prompts as published, targets that read back as the truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxformers.data.pipeline.stateless_random import Draws
from jaxformers.data.scenes import EmojiScenes, paint_masks
from jaxformers.data.scenes.truth import questions, thing_counts
from jaxformers.errors import ConfigError, DataError
from jaxformers.tasks import text_image as ti
from jaxformers.tasks.text_image.evaluation import task_figure
from jaxformers.tasks.text_image.pictures.segmentation import read_masks
from jaxformers.tasks.text_image.pictures.synthesis import HiddenRegion, painted_segments
from jaxformers.tasks.text_image.texts.denoising import noise_mask, with_sentinels
from jaxformers.text.unified_io import Regions, UnifiedIOTokenizer

SCENES = EmojiScenes(size=300)
ON_SCENES = (
    ti.VQA,
    ti.Captioning,
    ti.Categorisation,
    ti.Depth,
    ti.Detection,
    ti.GroundedVQA,
    ti.ImageClassification,
    ti.ImageDenoising,
    ti.Inpainting,
    ti.Localisation,
    ti.Referring,
    ti.RegionCaptioning,
    ti.Relationship,
    ti.SegmentSynthesis,
    ti.Segmentation,
    ti.Synthesis,
    ti.VisualEntailment,
)


@pytest.fixture(scope="module")
def tokenizer():
    samples = [task(SCENES).open() for task in (ti.VQA, ti.Captioning, ti.RegionCaptioning)]
    texts = [
        text
        for examples in samples
        for index in range(60)
        for sample in [examples.sample(index, index << 33)]
        for text in (sample.prompt, sample.text)
    ]
    return UnifiedIOTokenizer.train([*texts, 'abcdefghijklmnopqrstuvwxyz0123456789?",.:'], 120)


def words(count, seed=0):
    return [int(word) for word in Draws(seed).words(count)]


def answered(tokenizer, task, sample):
    """The answer of a model that gives the target."""
    ids = [*tokenizer.encode(sample.text or "")[0], 1]
    return task.read(tokenizer, ti.Prediction(ids, sample.target), sample)


@pytest.mark.parametrize("task_class", ON_SCENES, ids=lambda cls: cls.__name__)
def test_the_target_reads_back_as_the_truth_and_the_trivial_answer_does_not(tokenizer, task_class):
    task = task_class(SCENES)
    examples = task.open()
    samples = [examples.sample(index, word) for index, word in enumerate(words(60))]
    truths = [sample.truth for sample in samples]
    right = task.metrics([answered(tokenizer, task, sample) for sample in samples], truths)
    trivial = task.metrics(task.trivial(truths), truths)
    wrong = task.metrics([task.read(tokenizer, ti.Prediction(), s) for s in samples], truths)
    assert set(right) == set(trivial) == set(wrong)
    better = -1 if task.BEST in ("rmse", "angle") else 1
    assert better * right[task.BEST] > better * trivial[task.BEST]
    assert better * right[task.BEST] > better * wrong[task.BEST]
    if task.BEST in ("accuracy", "exact"):
        assert right[task.BEST] == 100
    axis = Figure().subplots()
    task.show(axis, samples[0], answered(tokenizer, task, samples[0]))


def test_samples_are_functions_of_index_and_word():
    examples = ti.VQA(SCENES).open()
    first, again = (examples.sample(5, 3 << 40) for _ in range(2))
    assert (first.prompt, first.text) == (again.prompt, again.text)
    prompts = {examples.sample(5, word).prompt for word in words(30)}
    assert len(prompts) > 2


@pytest.mark.parametrize(
    ("task_class", "prompt"),
    [
        (ti.Captioning, "What does the image describe ?"),
        (ti.Depth, "What is the depth map of the image ?"),
        (ti.ImageClassification, "What is this in the image ?"),
        (ti.SurfaceNormals, "What is the surface normal of the image ?"),
    ],
)
def test_prompts_are_the_published_ones(task_class, prompt):
    assert prompt == task_class.PROMPT


def test_prompts_hold_locations_and_names_as_published():
    sample = ti.Inpainting(SCENES).open().sample(0, 0)
    assert sample.prompt.startswith('Filling the blank region " <extra_id_')
    assert sample.prompt.endswith(' " ?')
    assert len(sample.hidden) == 4
    sample = ti.Segmentation(SCENES).open().sample(0, 0)
    assert sample.prompt.startswith('What is the segmentation of " ')
    sample = ti.SegmentSynthesis(SCENES).open().sample(0, 0)
    assert " : white" in sample.prompt


def test_segments_are_painted_in_the_colours_that_the_prompt_names():
    left = np.zeros((4, 6), bool)
    left[:, :2] = True
    prompt, painted = painted_segments(["Bus", "tree", "car"], [left, left, ~left])
    assert prompt == (
        'What is the complete image? Segmentation color: " bus : white , tree : red , car : lime "'
    )
    # The published table calls its first colour white and paints it red, as its second.
    np.testing.assert_array_equal(painted[left], np.broadcast_to((255, 0, 0), (8, 3)))
    np.testing.assert_array_equal(painted[~left], np.broadcast_to((0, 255, 0), (16, 3)))


def test_masks_are_painted_and_read_again():
    masks = np.zeros((4, 40, 40), bool)
    for number, (y, x) in enumerate([(2, 2), (2, 22), (22, 2), (22, 22)]):
        masks[number, y : y + 12, x : x + 12] = True
    read = read_masks(paint_masks(masks))
    assert len(read) == 4
    np.testing.assert_array_equal(read, masks)
    assert read_masks(np.zeros((8, 8, 3), np.uint8)) == []
    small = paint_masks(masks[:, ::5, ::5])  # 2 x 2 pixels are an object in 8 x 8
    np.testing.assert_array_equal(read_masks(small), masks[:, ::5, ::5])


def test_spans_of_three_tokens_are_removed_from_fifteen_percent():
    removed = spans = total = 0
    for number in range(2_000):
        mask = noise_mask(200, 0.15, 3.0, Draws(number))
        assert not mask[0]  # a text begins with a token that stays
        removed, total = removed + mask.sum(), total + 200
        spans += (mask[1:] & ~mask[:-1]).sum()
    assert removed == 0.15 * total
    assert removed / spans == 3.0
    for length in range(2, 30):
        assert 1 <= noise_mask(length, 0.15, 3.0, Draws(length)).sum() < length


@pytest.mark.slow
def test_a_hundred_thousand_texts_are_corrupted_evenly():
    positions = np.zeros(64)
    for number in range(100_000):
        positions += noise_mask(64, 0.15, 3.0, Draws(1, number))
    share = positions / 100_000
    assert share.sum() == pytest.approx(10)  # round(0.15 * 64) of every text
    assert share[0] == 0
    assert share[-1] == 1  # as in T5, the last span ends the text
    np.testing.assert_allclose(share[8:48], 0.119, rtol=0.08)


def test_sentinels_and_their_spans_make_the_text_again(tokenizer):
    text = "how many buses are there and what color is the ground ?"
    tokens = tokenizer.encode(text)[0]
    inputs, target = with_sentinels(tokenizer, tokens, noise_mask(len(tokens), 0.4, 2.0, Draws(4)))
    spans, current = {}, None
    for token in target:
        if token >= tokenizer.sentinel_id(99):
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    restored = [t for token in inputs for t in spans.get(token, [token])]
    assert restored == tokens
    assert list(spans) == [tokenizer.sentinel_id(k) for k in range(len(spans))]
    task = ti.TextDenoising(ti.ListedRecords.of([{"text": text}]))
    sample = task.open().sample(0, 9)
    assert task.ids(tokenizer, sample, 9, 40) == task.ids(tokenizer, sample, 9, 40)
    assert max(map(len, task.ids(tokenizer, sample, 9, 4))) <= 5


def test_texts_that_are_bundled_feed_tasks_on_text():
    task = ti.TextClassification(question="is the sentence positive or negative ?")
    examples = task.open()
    sample = examples.sample(3, 0)
    assert sample.text in ("positive", "negative")
    assert sample.prompt.endswith("question: is the sentence positive or negative ?")
    assert sample.image is None
    languages = ti.TextClassification(ti.BundledTexts("headings")).open()
    assert {languages.sample(5, word).text for word in words(20)} == {"english", "german"}
    train, held_out = (ti.BundledTexts("headings", held_out=h) for h in (False, True))
    assert not {r[0][0] for r in train._rows} & {r[0][0] for r in held_out._rows}


def test_tasks_on_listed_records():
    qa = ti.QuestionAnswering(
        ti.ListedRecords.of(
            [{"context": "A bus is red.", "question": "what is red ?", "answers": ["bus", "a bus"]}]
        )
    )
    sample = qa.open().sample(0, 0)
    assert sample.prompt == "context: A bus is red. question: what is red ?"
    assert qa.metrics(["the bus"], [sample.truth]) == {"f1": 100, "exact": 100}
    pair = {"premise": "a", "hypothesis": "b", "label": "entailment"}
    entailment = ti.TextEntailment(ti.ListedRecords.of([pair])).open().sample(0, 0)
    assert entailment.prompt.startswith("sentence1: a sentence2: b question:")
    summary = ti.Summarisation(ti.ListedRecords.of([{"text": "long", "summary": "short"}]))
    assert summary.metrics(["short"], [summary.open().sample(0, 0).truth]) == {"rouge_l": 100}


def write_records(folder, **features):
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(folder / "a.png")
    path = folder / "records.jsonl"
    path.write_text(json.dumps({"image": "a.png"} | features) + "\n")
    return ti.JsonlRecords(str(path))


def test_records_of_a_table_hold_decoded_pictures(tmp_path):
    source = write_records(
        tmp_path, box=[0, 0, 30, 20], points=[[3, 4]] * 17, visibility=[2] * 17, who="cat"
    )
    task = ti.KeyPointEstimation(source)
    sample = task.open().sample(0, 0)
    assert sample.image.shape == (20, 30, 3)
    assert sample.text.count(" 3") >= 17
    assert task.metrics([sample.truth.joints], [sample.truth]) == {"similarity": 100}
    named = ti.Categorisation(ti.JsonlRecords(source.path, features=(("label", "who"),)))
    assert named.open().sample(0, 0).text == "cat"


def test_normals_ignore_unknown_pixels(tmp_path):
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "n.png")
    task = ti.SurfaceNormals(write_records(tmp_path, normals="n.png"))
    truth = task.open().sample(0, 0).truth.copy()
    answer = truth.copy()
    truth[:10] = 0
    answer[:10] = 255
    assert task.metrics([answer], [truth])["angle"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, r"VQA, example 0: the feature 'question' is missing"),
        ({"question": 5, "answers": ["a"]}, r"VQA, example 0: its features .*question \(int\)"),
        ({"question": "q", "answers": []}, r"VQA, example 0: .* nothing to choose from"),
    ],
)
def test_errors_name_task_example_and_feature(tmp_path, features, message):
    with pytest.raises(DataError, match=message):
        ti.VQA(write_records(tmp_path, **features)).open().sample(0, 0)


@pytest.mark.parametrize(
    ("task_class", "features"),
    [
        (ti.Depth, {"depth": np.zeros((30, 20)).tolist()}),
        (ti.SurfaceNormals, {"normals": np.zeros((30, 20, 3), int).tolist()}),
        (ti.Segmentation, {"name": "cat", "masks": np.ones((1, 30, 20), int).tolist()}),
        (ti.Segmentation, {"name": "cat", "masks": np.ones((10, 10, 6), int).tolist()}),
        (ti.SegmentSynthesis, {"labels": ["cat"], "masks": np.ones((10, 10, 6), int).tolist()}),
    ],
)
def test_maps_of_another_size_than_the_picture_are_refused(tmp_path, task_class, features):
    task = task_class(write_records(tmp_path, **features))
    with pytest.raises(DataError, match=r"example 0: .* has the shape .*, with this picture it is"):
        task.open().sample(0, 0)


def test_a_picture_may_have_no_mask(tmp_path):
    task = ti.Segmentation(write_records(tmp_path, name="cat", masks=[]))
    assert not task.open().sample(0, 0).target.any()


UNUSABLE = [
    (ti.Captioning, {"image": 5, "captions": "a"}, "image is 5, not a picture"),
    (ti.Captioning, {"image": [1, 2], "captions": "a"}, r"image is \[1, 2\], not a picture"),
    (ti.Captioning, {"captions": [1, 2]}, r"captions \(list\) do not fit: 1 is not a text"),
    (ti.Captioning, {"captions": ["a", 2]}, "2 is not a text"),
    (ti.VQA, {"question": "q", "answers": [5]}, "5 is not a text"),
    (ti.ImageClassification, {"label": [5]}, "5 is not a text"),
    (ti.Summarisation, {"text": "a", "summary": 5}, r"summary \(int\) do not fit: 5 is not a text"),
    (ti.TextDenoising, {"text": 5}, r"text \(int\) do not fit: 5 is not a text"),
    (ti.Categorisation, {"box": [0, 0, 1e400, 5], "label": "a"}, r"box .* not all finite numbers"),
    (ti.SegmentSynthesis, {"labels": [], "masks": []}, r"labels \(list\), .*: 0 segments"),
    (ti.SurfaceNormals, {"normals": [[[300] * 3] * 30] * 20}, r"normals \(list\) do not fit"),
]

TURNED = [5, 5, 0, 0]
UNUSABLE += [
    (task_class, {"box": TURNED} | features, "upper left corner")
    for task_class, features in (
        (ti.Referring, {"text": "a"}),
        (ti.GroundedVQA, {"question": "q", "answer": "a"}),
        (ti.Inpainting, {"label": "a"}),
        (ti.Categorisation, {"label": "a"}),
        (ti.RegionCaptioning, {"captions": "a"}),
        (ti.KeyPointEstimation, {"points": [[3, 4]] * 17, "visibility": [2] * 17}),
    )
]
BOXES = [[0, 0, 5, 5]] * 3
UNUSABLE += [
    (ti.Detection, {"boxes": [TURNED], "labels": ["a"]}, "upper left corner"),
    (ti.Detection, {"boxes": BOXES[:2], "labels": ["a", 2]}, "2 is not a text"),
    (ti.Detection, {"boxes": BOXES, "labels": "cat"}, r"the shape \(3, 4\) and 1 labels"),
    (ti.Detection, {"boxes": [[0, 0, 5]] * 4, "labels": ["a"] * 3}, r"\(4, 3\) and 3 labels"),
    (ti.Localisation, {"boxes": [TURNED], "name": "a"}, "upper left corner"),
    (
        ti.KeyPointEstimation,
        {"box": BOXES[0], "points": [[3, 4]] * 17, "visibility": [9] + [2] * 16},
        "it is 0, 1 or 2",
    ),
    (
        ti.VisualEntailment,
        {"premise": "a", "hypothesis": "b", "label": "zzz"},
        "'zzz' is none of the options entailment, neutral",
    ),
]


@pytest.mark.parametrize(("task_class", "features", "message"), UNUSABLE)
def test_features_that_cannot_be_used_are_named(tmp_path, task_class, features, message):
    samples = task_class(write_records(tmp_path, **features)).open()
    with pytest.raises(DataError, match=f"{task_class.__name__}, example 0: .*{message}"):
        samples.sample(0, 0)


@pytest.mark.parametrize("task_class", [ti.Detection, ti.Localisation])
def test_pictures_without_boxes_are_answered_by_no_box(tmp_path, task_class):
    task = task_class(write_records(tmp_path, boxes=[], labels=[], name="a"))
    truths = [task.open().sample(0, 0).truth] * 2
    assert task.metrics(task.trivial(truths), truths)[task.BEST] == 100


@pytest.mark.parametrize("value", ["x.jsonl", Path("x.jsonl"), ti.JsonlRecords, None])
def test_what_is_no_source_is_refused(value):
    with pytest.raises(ConfigError, match=r"the source of Captioning is .*: give a source"):
        ti.Captioning(value)


def test_a_text_is_not_taken_for_options():
    with pytest.raises(ConfigError, match="options is the text 'abc'"):
        ti.ImageClassification(options="abc")


def test_what_has_no_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no truth for KeyPointEstimation"):
        ti.KeyPointEstimation().open()
    with pytest.raises(DataError, match="no truth for Commonsense"):
        ti.Commonsense().open()
    with pytest.raises(DataError, match="no such file"):
        ti.VQA(ti.JsonlRecords(str(tmp_path / "none.jsonl"))).open()
    with pytest.raises(DataError, match="none suits Relationship"):
        ti.Relationship(EmojiScenes(size=100, most_objects=1)).open()


def test_malformed_regions_score_nothing_but_raise_nothing(tokenizer):
    task = ti.Detection(SCENES)
    sample = task.open().sample(0, 0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        row = rng.integers(0, tokenizer.vocab_size, 20)
        answer = task.read(tokenizer, ti.Prediction(row.tolist()), sample)
        assert isinstance(answer, Regions)
        task.metrics([answer], [sample.truth])


@pytest.mark.parametrize(
    "task_class", [ti.Depth, ti.Segmentation, ti.SegmentSynthesis, ti.Synthesis]
)
def test_trivial_pictures_have_the_sizes_of_their_truths(task_class):
    task = task_class(SCENES)
    truth = task.open().sample(0, 0).truth
    if not isinstance(truth, np.ndarray):
        truth = task.open().sample(0, 0).target
    truths = [truth, truth[:20, :40], truth[:50]]
    assert [answer.shape for answer in task.trivial(truths)] == [t.shape for t in truths]


@pytest.mark.parametrize(("levels", "farthest"), [(np.uint8, 255.0), (np.uint16, 10_000.0)])
def test_depth_maps_are_read_in_the_levels_of_their_files(tmp_path, levels, farthest):
    depth = np.linspace(0, farthest, 600).reshape(20, 30).astype(levels)
    Image.fromarray(depth).save(tmp_path / "d.png")
    task = ti.Depth(write_records(tmp_path, depth="d.png"), farthest=farthest)
    target = task.open().sample(0, 0).target
    np.testing.assert_allclose(target[..., 0], depth * (255.0 / farthest), atol=0.501)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(DataError, match="a depth map has one channel"):
        task.open().sample(0, 0)


def test_a_dictionary_of_answers_is_not_taken_for_its_keys(tmp_path):
    source = write_records(
        tmp_path, question="q", answers={"text": ["a"], "answer_start": [1]}, context="c"
    )
    with pytest.raises(DataError, match="it holds text, answer_start: name one of them"):
        ti.VQA(source).open().sample(0, 0)


def test_restored_spans_are_compared_with_those_of_the_row(tokenizer):
    task = ti.TextDenoising()
    sample = task.open().sample(0, 0)
    _, target = task.ids(tokenizer, sample, 5 << 32, 30)
    truth = task.truth(tokenizer, sample, [*target, 1, 0, 0])
    answer = task.read(tokenizer, ti.Prediction([*target, 1]), sample)
    assert truth and task.metrics([answer], [truth]) == {"exact": 100}


def test_every_task_on_scenes_is_drawn():
    for task_class in ON_SCENES:
        samples = [task_class(SCENES).open().sample(index, index << 33) for index in range(2)]
        task = task_class(SCENES)
        figure = task_figure(task, samples, task.trivial([sample.truth for sample in samples]))
        assert len(figure.axes) == 6


def test_a_hidden_region_is_blank_in_the_drawn_input():
    task = ti.Inpainting(SCENES)
    sample = task.open().sample(0, 0)
    x1, y1, x2, y2 = sample.hidden
    figure = task_figure(task, [sample], task.trivial([sample.truth]))
    (blank,) = figure.axes[0].patches
    assert (blank.get_width(), blank.get_height()) == (x2 - x1, y2 - y1)
    assert not any(axis.patches for axis in figure.axes[1:])


def test_key_points_are_drawn(tmp_path):
    source = write_records(tmp_path, box=[0, 0, 30, 20], points=[[3, 4]] * 17, visibility=[2] * 17)
    task = ti.KeyPointEstimation(source)
    sample = task.open().sample(0, 0)
    assert len(task_figure(task, [sample], task.trivial([sample.truth])).axes) == 3


def test_a_scene_of_all_things_has_questions():
    scenes = EmojiScenes(size=200, things=2, most_objects=5)
    full = [scene for scene in map(scenes.scene, range(200)) if len(thing_counts(scene)) == 2]
    assert full and all(questions(scene, 2) for scene in full)


def test_of_an_inpainted_picture_the_box_alone_counts():
    image = np.full((8, 8, 3), 100, np.uint8)
    image[2:5, 3:6] = 200
    task = ti.Inpainting(SCENES)
    sample = task.sample({"image": image, "box": (3, 2, 5.5, 5), "label": "bus"}, 0)
    answer = task.read(None, ti.Prediction(picture=np.zeros_like(image)), sample)
    assert (answer[2:5, 3:6] == 0).all()
    answer[2:5, 3:6] = image[2:5, 3:6]
    np.testing.assert_array_equal(answer, image)
    [copied] = task.trivial([sample.truth])
    assert (copied == 100).all()
    expected = 20 * np.log10(255 / 100)
    assert task.metrics([copied], [sample.truth])["psnr"] == pytest.approx(expected)
    assert task.metrics([image], [sample.truth])["psnr"] > 100
    assert task.read(None, ti.Prediction(), sample)[2:5, 3:6].max() == 0  # nothing was painted


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (-3, -3, 20, 20), (8, 8, 8, 8), (9, 9, 12, 12)])
def test_boxes_at_the_edge_have_pixels(box):
    region = HiddenRegion(np.zeros((8, 8, 3), np.uint8), box)
    assert region.picture[region.slices].size
    task = ti.Inpainting(SCENES)
    assert np.isfinite(task.metrics(task.trivial([region]), [region])["psnr"])
