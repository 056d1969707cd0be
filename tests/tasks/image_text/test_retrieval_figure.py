"""The figure of a retrieval: captions, the images nearest to them, the right ones framed."""

import numpy as np
from matplotlib.colors import to_rgba

from jaxformers.data.captions import BundledEmoji, CaptionFolder
from jaxformers.interpret.figures import RIGHT
from jaxformers.tasks.image_text.retrieval import HITS, retrieval_figure


def image_axes(figure):
    return [axis for axis in figure.axes if axis.images]


def test_the_figure_shows_the_nearest_images_and_frames_the_right_ones():
    images = BundledEmoji(("fluent",), limit=24).open()
    captions = np.array([images.captions(index)[0] for index in range(24)])
    similarities = np.random.default_rng(0).normal(size=(24, 24))
    similarities[np.arange(24), np.arange(24)] += 2
    similarities[6] -= 9 * np.eye(24)[6]  # the fourth query's own image is the farthest
    positives = captions[:, None] == captions[None]
    figure = retrieval_figure(images, captions[::2], similarities[::2], positives[::2])
    drawn = image_axes(figure)
    assert len(drawn) == 12 * HITS
    nearest = np.argsort(-similarities[::2], axis=1)[:, :HITS]
    framed = [axis.spines["top"].get_edgecolor() == to_rgba(RIGHT) for axis in drawn]
    rows = np.array(framed).reshape(6, 2, HITS).swapaxes(0, 1).reshape(12, HITS)
    np.testing.assert_array_equal(rows, captions[nearest] == captions[::2, None])
    assert not rows[3].any() and rows.any(1).sum() >= 6
    for query, index in ((0, nearest[0, 0]), (1, nearest[1, 0])):
        pixels = drawn[query * 2 * HITS].images[0].get_array().astype(float)
        image = np.asarray(images.image(index), float) / 255
        assert abs(pixels.mean() - image.mean()) < 0.02


def test_a_damaged_image_leaves_its_frame_empty(tmp_path):
    images = BundledEmoji(("fluent",), limit=3).open()
    for index in range(3):
        images.image(index).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"caption {index}\n")
    (tmp_path / "1.png").write_bytes(b"no image")
    damaged = CaptionFolder(str(tmp_path)).open()
    captions = [damaged.captions(index)[0] for index in range(3)]
    figure = retrieval_figure(damaged, captions, np.eye(3), np.eye(3, dtype=bool))
    assert len(image_axes(figure)) == 6
