"""Emoji scenes: pure functions of (seed, index), with truth that the pixels bear out."""

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from jaxformers.data.scenes import (
    THINGS,
    EmojiSceneImages,
    EmojiScenes,
    captions,
    depth_picture,
    drawings,
    expressions,
    located_caption,
    masks_of,
    paint_masks,
    questions,
    region_caption,
    relations,
)
from jaxformers.errors import ConfigError, DataError

SCENES = EmojiScenes(size=200)


@pytest.fixture(scope="module")
def scenes():
    return [SCENES.scene(index) for index in range(60)]


def digest(scene):
    arrays = [scene.image, scene.depth, *(obj.mask for obj in scene.objects)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_a_scene_is_a_function_of_seed_and_index_alone(scenes):
    assert digest(EmojiScenes(size=200).scene(7)) == digest(scenes[7])
    assert digest(SCENES.scene(8)) != digest(scenes[7])
    assert digest(EmojiScenes(size=200, seed=1).scene(7)) != digest(scenes[7])
    assert digest(EmojiScenes(size=9_000_000).scene(7)) == digest(scenes[7])


def test_drawings_held_out_are_of_the_same_things_in_a_style_never_trained_on():
    for training, held_out in zip(drawings(False), drawings(True), strict=True):
        assert {d.thing for d in training} == {d.thing for d in held_out}
        assert not {d.style for d in training} & {d.style for d in held_out}
    held_out = EmojiScenes(held_out=True, size=200).scene(0)
    styles = {(d.thing, d.style) for row in drawings(True) for d in row}
    assert all((obj.drawing.thing, obj.drawing.style) in styles for obj in held_out.objects)


def test_masks_are_disjoint_and_their_boxes_tight(scenes):
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 5
        assert np.sum([obj.mask for obj in scene.objects], axis=0).max() == 1
        for obj in scene.objects:
            x1, y1, x2, y2 = obj.box
            assert obj.mask[y1:y2, x1:x2].sum() == obj.mask.sum() > 0
            assert obj.mask[y1].any()
            assert obj.mask[y2 - 1].any()
            assert obj.mask[:, x1].any()
            assert obj.mask[:, x2 - 1].any()


def test_depth_is_zero_on_the_ground_and_grows_towards_the_nearest(scenes):
    for scene in scenes:
        covered = np.logical_or.reduce([obj.mask for obj in scene.objects])
        assert (scene.depth[~covered] == 0).all()
        depths = [np.unique(scene.depth[obj.mask]) for obj in scene.objects]
        assert all(len(values) == 1 for values in depths)
        assert sorted(float(v[0]) for v in depths) == [float(v[0]) for v in depths]


def test_the_ground_is_untouched_where_no_object_is(scenes):
    for scene in scenes:
        covered = np.logical_or.reduce([obj.mask for obj in scene.objects])
        near = np.pad(covered, 2)
        rows, columns = covered.shape
        for dy in range(5):
            for dx in range(5):
                covered = covered | near[dy : dy + rows, dx : dx + columns]
        ground = scene.ground.pixels(rows)
        np.testing.assert_array_equal(scene.image[~covered], ground[~covered])


def test_answers_agree_with_the_objects(scenes):
    plurals = {thing.plural: thing.name for thing in THINGS}
    for scene in scenes:
        names = [obj.name for obj in scene.objects]
        for question in questions(scene, len(THINGS)):
            words = question.question.split()
            if question.kind == "count" and words[2] != "things":
                assert int(question.answer) == names.count(plurals[words[2]])
            if question.kind == "presence":
                assert question.answer == ("yes" if words[3] in names else "no")
        assert all(name in captions(scene)[0] or names.count(name) > 1 for name in names)
        for text, number in expressions(scene):
            assert text.split()[-1] == names[number]
        assert len({text for text, _ in expressions(scene)}) == len(expressions(scene))
        for number, name in enumerate(names):
            assert name in region_caption(scene, number)


def test_a_located_caption_names_the_ninth_of_each_object(scenes):
    rows = (("upper", "top"), ("left", "middle", "right"), ("lower", "bottom"))
    for scene in scenes:
        phrases = re.split(", | and ", located_caption(scene).split(" on ")[0])
        assert len(phrases) == len(scene.objects)
        for phrase, obj in zip(phrases, scene.objects, strict=True):
            assert obj.name in phrase
            x, y = (3 * centre / len(scene.image) for centre in obj.centre)
            words = phrase.rpartition(obj.name)[2].split()
            assert ("left" in words, "right" in words) == (x < 1, x >= 2)
            assert (words[-1] in rows[0] or words[-2] == "upper") == (y < 1)
            assert (words[-1] in rows[2] or words[-2] == "lower") == (y >= 2)


def test_relations_come_in_opposite_pairs(scenes):
    opposite = {"left of": "right of", "above": "below", "in front of": "behind"}
    opposite |= {b: a for a, b in opposite.items()}
    predicates = set()
    for scene in scenes:
        triples = set(relations(scene))
        for first, predicate, second in triples:
            assert (second, opposite[predicate], first) in triples
            predicates.add(predicate)
            if predicate == "left of":
                assert scene.objects[first].centre[0] < scene.objects[second].centre[0]
            if predicate == "in front of":
                assert first > second  # the nearer is painted later
    assert predicates == set(opposite)


def test_objects_have_the_stated_scales():
    scenes = EmojiScenes(size=40, most_objects=1, farthest_scale=0.7, nearest_scale=0.75)
    for index in range(40):
        [obj] = scenes.scene(index).objects
        x1, y1, x2, y2 = obj.box
        assert 0.65 * 64 <= max(x2 - x1, y2 - y1) <= 0.75 * 64 + 1
    with pytest.raises(ConfigError, match=r"farthest_scale is 0\.8, above nearest_scale 0\.56"):
        EmojiScenes(farthest_scale=0.8)


def test_the_first_things_are_of_all_categories():
    assert [thing.category for thing in THINGS[:4]] == ["animal", "food", "vehicle", "object"]
    assert len({thing.name for thing in THINGS}) == len(THINGS) == 32


def test_what_cannot_be_a_set_of_scenes_is_refused():
    with pytest.raises(ConfigError, match="above most_objects"):
        EmojiScenes(least_objects=4, most_objects=2)
    with pytest.raises(ConfigError, match="most_objects"):
        EmojiScenes(most_objects=6)
    with pytest.raises(DataError, match="scene 200 of 200"):
        SCENES.scene(200)


@pytest.mark.parametrize("side", [16, 48, 128])
def test_pictures_have_the_stated_side(side):
    scene = EmojiScenes(side=side).scene(3)
    assert scene.image.shape == (side, side, 3)
    assert scene.objects


def test_scenes_are_images_for_training_and_held_out_ones_for_development():
    data = EmojiSceneImages(EmojiScenes(size=8, side=16), dev_size=4)
    images, dev, test = (source.open() for source in (data, data.other("dev"), data.other("test")))
    assert (len(images), len(dev), len(test)) == (8, 4, 4)
    np.testing.assert_array_equal(images.image(3), data.scenes.scene(3).image)
    assert not images.labelled and images.labels.tolist() == [-1] * 8
    assert dev.scenes.held_out and not np.array_equal(dev.image(0), test.image(0))


def test_a_share_of_the_training_pictures_are_depth_maps_and_painted_masks():
    scenes = EmojiScenes(size=400, side=16, most_objects=2, things=6)
    data = EmojiSceneImages(scenes, dev_size=4, maps=0.3)
    images, kinds = data.open(), Counter()
    for index in range(len(images)):
        scene, image = scenes.scene(index), images.image(index)
        masks = [paint_masks(masks_of(scene, obj.name)) for obj in scene.objects]
        kinds["scene"] += np.array_equal(image, scene.image)
        kinds["depth"] += np.array_equal(image, depth_picture(scene.depth))
        kinds["masks"] += any(np.array_equal(image, picture) for picture in masks)
    assert sum(kinds.values()) == 400
    assert 40 <= kinds["depth"] <= 80 and 40 <= kinds["masks"] <= 80
    assert images.content != EmojiSceneImages(scenes).open().content
    np.testing.assert_array_equal(
        data.other("dev").open().image(1), data.other("dev").scenes.scene(1).image
    )
