"""Figure 7's arrays equal direct statements; MAE pictures; pictures are of the size they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.testing import assert_allclose
from PIL import Image

from jaxformers.errors import DataError
from jaxformers.interpret import explanation_figures as explained
from jaxformers.interpret import figures, vision
from jaxformers.interpret.explain import heat_map
from jaxformers.models import MAEConfig, MAEOutput

DRAWS = np.random.RandomState(0)


def test_filters_are_numpys_principal_components_up_to_sign():
    kernel = DRAWS.randn(2, 2, 3, 20)
    got = vision.patch_filters(kernel, 5)
    filters = kernel.reshape(12, 20)
    size, axes = np.linalg.eigh(np.cov(filters))
    want = axes[:, np.argsort(-size)[:5]].T
    assert got.shape == (5, 2, 2, 3)
    assert_allclose(abs((got.reshape(5, 12) * want).sum(1)), 1, atol=1e-5)
    with pytest.raises(DataError, match="at most 12"):
        vision.patch_filters(kernel, 13)


def test_similarity_is_one_to_itself_and_leaves_the_class_token_out():
    table = DRAWS.randn(7, 8)
    got = vision.position_similarity(table, (2, 3))
    assert got.shape == (6, 2, 3)
    assert_allclose(got.reshape(6, 6).diagonal(), 1, atol=1e-6)
    a, b = table[1], table[6]
    assert_allclose(got[0, 1, 2], a @ b / np.linalg.norm(a) / np.linalg.norm(b), atol=1e-6)
    assert_allclose(vision.position_similarity(table[1:], (2, 3)), got)
    with pytest.raises(DataError, match="2 x 2"):
        vision.position_similarity(table, (2, 2))


@pytest.mark.parametrize("normalized", [False, True])
def test_attention_distance_is_the_sum_over_all_pairs(normalized):
    probs = DRAWS.dirichlet(np.ones(7), (3, 2, 4, 7))  # n B H T, rows sum to 1
    got = vision.mean_attention_distance(probs, (2, 3), 16, normalized=normalized)
    want = np.zeros((3, 4))
    for n, b, h in np.ndindex(3, 2, 4):
        for q in range(6):
            row = probs[n, b, h, q + 1, 1:]
            for k in range(6):
                apart = 16 * np.hypot(q // 3 - k // 3, q % 3 - k % 3)
                want[n, h] += row[k] * apart / (row.sum() if normalized else 1) / 12
    assert_allclose(got, want, rtol=1e-5)


def test_a_token_that_looks_at_itself_has_no_distance():
    assert_allclose(vision.mean_attention_distance(np.eye(9)[None, None, None], (3, 3), 4), 0)


def test_receptive_fields_grow_by_each_kernel_at_its_stride():
    assert vision.receptive_field([3, 3, 3], [1, 2, 1]) == [3, 5, 9]
    fields = vision.resnet_receptive_field((3, 4, 6, 3), bottleneck=True)
    assert fields[:4] == [11, 19, 27, 35] and fields[-1] == 427 and len(fields) == 17
    assert vision.resnet_receptive_field((2, 2, 2, 2), bottleneck=False)[-1] == 435
    assert vision.resnet_receptive_field((3, 4, 6, 3), bottleneck=False)[-1] == 899


def test_reconstructions_keep_what_was_seen_and_undo_the_norm():
    images = DRAWS.rand(1, 4, 6, 3).astype(np.float32)
    mask = np.array([[1, 0, 0, 1, 1, 0]], np.float32)
    flat = images.reshape(1, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 6, 12)
    perfect = (flat - flat.mean(-1, keepdims=True)) / flat.std(-1, keepdims=True, ddof=1)
    config = MAEConfig.base(2, image_size=8)
    visible, reconstructed = vision.reconstructions(config, images, MAEOutput(perfect, mask, 0.0))
    assert_allclose(reconstructed, images, atol=1e-3)
    assert (visible[0, :2, :2] == 0).all()
    assert_allclose(visible[0, :2, 2:], images[0, :2, 2:], atol=1e-6)
    plain = replace(config, norm_pix_loss=False)
    wrong = MAEOutput(flat + 1, mask, 0.0)
    assert_allclose(
        vision.reconstructions(plain, images, wrong)[1][0, :2, :2], images[0, :2, :2] + 1, atol=1e-6
    )
    assert_allclose(
        vision.reconstructions(plain, images, wrong)[1][0, :2, 2:], images[0, :2, 2:], atol=1e-6
    )


def test_an_honest_reconstruction_uses_nothing_that_is_hidden():
    images = DRAWS.rand(1, 4, 6, 3).astype(np.float32)
    mask = np.array([[1, 0, 0, 1, 1, 0]], np.float32)
    prediction = DRAWS.randn(1, 6, 12).astype(np.float32)
    config = MAEConfig.base(2, image_size=8)
    output = MAEOutput(prediction, mask, 0.0)
    _, honest = vision.reconstructions(config, images, output, "visible")
    patches = images.reshape(1, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(1, 6, 12)
    visible = patches[0, mask[0] == 0]
    mean, deviation = visible.mean(-1).mean(), np.sqrt(visible.var(-1, ddof=1) + 1e-6).mean()
    first = (prediction[0, 0] * deviation + mean).reshape(2, 2, 3)
    assert_allclose(honest[0, :2, :2], first, rtol=1e-5)
    assert_allclose(honest[0, :2, 2:4], images[0, :2, 2:4], atol=1e-6)
    altered = images.copy()
    altered[0, :2, :2] = 0.9  # a hidden patch
    _, again = vision.reconstructions(config, altered, output, "visible")
    assert_allclose(again, honest, atol=1e-6)
    _, flattered = vision.reconstructions(config, altered, output)
    assert abs(flattered - vision.reconstructions(config, images, output)[1]).max() > 0.1


def test_the_figure_says_what_scaled_the_reconstruction():
    images = DRAWS.rand(2, 8, 8, 3)
    titles = [a.get_title() for a in figures.reconstruction_figure(*[images] * 4).axes]
    assert "true mean and deviation" in titles[2] and "visible patches" in titles[3]
    plain = figures.reconstruction_figure(*[images] * 3, normalized_targets=False)
    assert [a.get_title() for a in plain.axes][:3] == ["original", "visible", "reconstruction"]


def test_heads_are_on_one_scale_with_a_colour_bar():
    probabilities = np.stack([np.full((3, 4), 0.25), np.eye(3, 4)])
    figure = figures.attention_figure(probabilities)
    assert {axis.images[0].get_clim() for axis in figure.axes[:2]} == {(0.0, 1.0)}
    assert len(figure.axes) == 3


def test_texts_are_on_one_scale():
    rows = [("good 99.7 %", ["a", "b"], [0.1, 0.9]), ("bad 0.3 %", ["a", "b"], [0.45, 0.0])]
    figure = explained.text_figure([*rows, ("odd", ["a", "b"], [0.001, 0.0])])
    texts = {t.get_text(): t for t in figure.texts}
    assert "odd (no evidence)" in texts
    reds = [t.get_bbox_patch().get_facecolor()[3] for t in figure.texts if t.get_bbox_patch()]
    assert_allclose(reds, [1 / 9, 1, 0.5, 0, 0, 0], atol=1e-6)


def test_the_topmost_points_lie_within_the_axis():
    figure = figures.attention_distance_figure(60 + 0.1 * DRAWS.rand(4, 3), [7, 91, 91.5])
    for axis in figure.axes:
        assert axis.get_ylim()[1] > 1.05 * axis.dataLim.y1
    assert figures.attention_distance_figure(np.zeros((2, 2))).axes[0].get_ylim()[1] > 0


def test_a_heat_map_grows_to_the_picture_and_keeps_its_peak():
    relevance = np.zeros(6)
    relevance[4] = 1
    heat = heat_map(relevance, (2, 3), (20, 30))
    assert heat.shape == (20, 30)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert 10 <= row < 20 and 10 <= column < 20
    with pytest.raises(DataError, match="6 patches"):
        heat_map(relevance, (2, 2), (4, 4))


FIGURES = {
    "filters": lambda: figures.filters_figure(DRAWS.randn(28, 4, 4, 3)),
    "similarity": lambda: figures.position_similarity_figure(
        vision.position_similarity(DRAWS.randn(12, 8), (3, 4))
    ),
    "distance": lambda: figures.attention_distance_figure(60 * DRAWS.rand(4, 3), [7, 11, 35, 91]),
    "mae": lambda: figures.reconstruction_figure(*(DRAWS.rand(2, 8, 8, 1) for _ in range(3))),
    "attention": lambda: figures.attention_figure(DRAWS.rand(2, 3, 4), list("abc"), list("wxyz")),
    "heat": lambda: explained.heat_figure(
        DRAWS.rand(20, 30, 3), DRAWS.rand(2, 20, 30), ["cat 60 %", "dog 30 %"]
    ),
    "text": lambda: explained.text_figure(
        [("good 90 %", ["a", "$fine$", "film"], [0.1, 0.9, 0.2])]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_picture_has_the_dimensions_of_its_figure(name, tmp_path):
    figure = FIGURES[name]()
    path = figures.save(figure, tmp_path / f"{name}.png", dpi=50)
    width, height = figure.get_size_inches()
    with Image.open(path) as image:
        assert_allclose(image.size, (width * 50, height * 50), atol=1)
        assert image.format == "PNG"


def test_a_long_name_does_not_reach_into_the_next_picture():
    name = "German shepherd, German shepherd dog, German police dog, alsatian 60.0%"
    figure = explained.heat_figure(
        DRAWS.rand(20, 20, 3), DRAWS.rand(2, 20, 20), [name, "lynx 3.0%"]
    )
    drawn = FigureCanvasAgg(figure).get_renderer()
    figure.draw(drawn)
    widths = [axis.title.get_window_extent(drawn).width for axis in figure.axes]
    assert max(widths) < figure.bbox.width / 3


def test_layers_are_counted_in_whole_numbers():
    axis = figures.attention_distance_figure(60 * DRAWS.rand(4, 3)).axes[0]
    assert all(tick == round(tick) for tick in axis.get_xticks())


def test_a_picture_of_no_kind_or_in_no_folder_is_refused(tmp_path):
    figure = FIGURES["filters"]()
    with pytest.raises(DataError, match=r"call it \.png"):
        figures.save(figure, tmp_path / "x.bread")
    with pytest.raises(DataError, match="cannot be written"):
        figures.save(figure, tmp_path / "nowhere" / "x.png")
