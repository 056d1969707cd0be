import io
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

import jaxformers as jf
from jaxformers.data.images import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.pretrained.preprocessing.preprocessor_config import (
    read_preprocessing,
    write_preprocessing,
)
from jaxformers.pretrained.preprocessing.processor_file import KINDS_BY_MODEL_TYPE

GOLDEN = np.load(Path(__file__).parents[2] / "fixtures" / "image_processors.npz")
CASES = sorted(name.removesuffix("_config") for name in GOLDEN.files if name.endswith("_config"))
PICTURES = ("wide", "tall", "square")
GREY = dict(channels=1, mean=(0.5,), std=(0.5,))


def write_config(folder, config):
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder


def refusal(folder, config, kind=WeightsError):
    with pytest.raises(kind) as error:
        jf.load_images(write_config(folder, config))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("case", CASES)
def test_pictures_are_those_of_transformers_own_processors(case, tmp_path):
    preprocessing = jf.load_images(
        write_config(tmp_path, json.loads(str(GOLDEN[f"{case}_config"])))
    )
    for name in PICTURES:
        ours = preprocessing(Image.fromarray(GOLDEN[f"picture_{name}"]))
        theirs = np.moveaxis(GOLDEN[f"{case}_{name}"], 0, -1)[None]
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-6)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_reads_as_the_same(case, tmp_path):
    first = jf.load_images(write_config(tmp_path, json.loads(str(GOLDEN[f"{case}_config"]))))
    write_preprocessing(first, tmp_path)
    assert read_preprocessing(tmp_path) == first


@pytest.mark.parametrize(
    "form",
    [
        Preprocessing(28, rule="none", **GREY),
        Preprocessing.central(20, 0.8, interpolation="bicubic"),
        Preprocessing(16, 20),
        Preprocessing((16, 24)),
        Preprocessing((16, 24), 30, "small"),
        Preprocessing((16, 24), (20, 24)),
        Preprocessing(16, 20, "small", crop="round", alpha="late"),
        Preprocessing(16, alpha="white"),
        Preprocessing(28, grey_bits=12, alpha="white", **GREY),
    ],
    ids=["grey", "central", "cut", "pair", "middle", "pair cut", "late", "white", "white grey"],
)
def test_our_own_runs_are_read_back(form, tmp_path):
    write_preprocessing(form, tmp_path)
    assert jf.load_images(tmp_path) == form
    (tmp_path / "run" / "model").mkdir(parents=True)
    write_preprocessing(form, tmp_path / "run" / "model")
    assert jf.load_images(tmp_path / "run") == form


def test_the_forms_of_older_versions_are_read(tmp_path):
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": 12, "resample": 2}
    assert jf.load_images(write_config(tmp_path, old)) == Preprocessing(12)
    clip = dict(feature_extractor_type="CLIPFeatureExtractor", size=14, crop_size=12)
    read = jf.load_images(write_config(tmp_path, clip))
    assert (read.size, read.resize, read.rule, read.interpolation) == (12, 14, "small", "bicubic")
    convnext = dict(image_processor_type="ConvNextImageProcessor", size=dict(shortest_edge=384))
    assert jf.load_images(write_config(tmp_path, convnext)).rule == "direct"


def test_a_file_without_a_type_goes_by_the_models(tmp_path):
    """As facebook/vit-mae-base has it since its publisher removed the type."""
    fields = dict(size=224, resample=3, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae"}')
    expected = Preprocessing(224, interpolation="bicubic", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert jf.load_images(write_config(tmp_path, fields)) == expected
    for model_type, kind in KINDS_BY_MODEL_TYPE.items():
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        untyped = jf.load_images(write_config(tmp_path, dict(crop_pct=0.8)))
        typed = dict(crop_pct=0.8, image_processor_type=f"{kind}ImageProcessor")
        assert jf.load_images(write_config(tmp_path, typed)) == untyped
    for config in ("{}", '{"model_type": "bert"}', '{"model_type": ["vit"]}'):
        (tmp_path / "config.json").write_text(config)
        assert "has no image_processor_type, and" in refusal(tmp_path, fields)
    (tmp_path / "config.json").unlink()
    assert "add one of ViTImageProcessor" in refusal(tmp_path, fields)


def test_the_processor_of_each_model_is_transformers_own():
    classes = json.loads(str(GOLDEN["classes"]))
    for model_type, kind in KINDS_BY_MODEL_TYPE.items():
        # transformers asks for a type beside these three.
        if model_type not in ("dinov2_with_registers", "clip_vision_model", "siglip_vision_model"):
            assert classes[model_type] == f"{kind}ImageProcessorPil"


@pytest.mark.parametrize(
    ("name", "interpolation"),
    [
        ("bicubic", "bicubic"),
        ("BILINEAR", "bilinear"),
        ("PIL.Image.LANCZOS", "lanczos"),
        ("PILImageResampling.BOX", "box"),
        ("Image.ANTIALIAS", "lanczos"),
        ("nearest", "nearest"),
    ],
)
def test_resample_may_be_a_name(name, interpolation, tmp_path):
    fields = dict(image_processor_type="ViTImageProcessor", resample=name)
    assert jf.load_images(write_config(tmp_path, fields)).interpolation == interpolation


def test_processor_config_precedes_and_is_kept_in_step(tmp_path):
    write_config(tmp_path, dict(image_processor_type="ViTImageProcessor", size=8))
    nested = dict(image_processor_type="DeiTImageProcessor", size=16, crop_size=12)
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps(dict(processor_class="CLIPProcessor", image_processor=nested)))
    half = dict(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert jf.load_images(tmp_path) == Preprocessing(12, 16, interpolation="bicubic", **half)
    write_preprocessing(Preprocessing(9), tmp_path)
    assert jf.load_images(tmp_path) == Preprocessing(9)
    assert json.loads(file.read_text())["processor_class"] == "CLIPProcessor"
    (tmp_path / "preprocessor_config.json").unlink()
    assert jf.load_images(tmp_path) == Preprocessing(9)
    file.write_text('{"image_processor": 3}')
    with pytest.raises(WeightsError, match="image_processor is no object of fields"):
        jf.load_images(tmp_path)
    file.write_text('{"processor_class": "CLIPProcessor"}')
    assert jf.load_images(
        write_config(tmp_path, dict(feature_extractor_type="ViTFeatureExtractor"))
    )


def test_an_int_size_is_a_square_or_the_shorter_side_as_the_file_says(tmp_path):
    fields = dict(image_processor_type="BitImageProcessor", size=12, crop_size=8)
    assert jf.load_images(write_config(tmp_path, fields)).rule == "small"
    square = jf.load_images(write_config(tmp_path, fields | dict(default_to_square=True)))
    assert (square.rule, square.resize, square.size) == ("direct", 12, 8)


def test_what_is_not_supported_is_refused_by_name(tmp_path):
    base = dict(image_processor_type="ViTImageProcessor")
    assert "do_pad = True" in refusal(tmp_path, base | dict(do_pad=True))
    assert "LevitImageProcessor is not supported" in refusal(
        tmp_path, dict(image_processor_type="LevitImageProcessor")
    )
    assert "not a height and a width" in refusal(
        tmp_path, base | dict(size=dict(shortest_edge=8, longest_edge=9))
    )
    uncropped = dict(image_processor_type="BitImageProcessor", do_center_crop=False)
    assert "many sizes" in refusal(tmp_path, uncropped)
    assert "fit into" in refusal(tmp_path, base | dict(do_center_crop=True, crop_size=999))
    convnext = dict(image_processor_type="ConvNextImageProcessor", size=dict(shortest_edge=24))
    assert "a second crop" in refusal(tmp_path, convnext | dict(do_center_crop=True, crop_size=20))
    assert "central crop without a resize" in refusal(
        tmp_path, dict(image_processor_type="DeiTImageProcessor", do_resize=False)
    )
    assert "at most 16384" in refusal(tmp_path, base | dict(size=10**9))
    assert "malformed" in refusal(tmp_path, base | dict(rescale_factor=10**400))
    assert "3 numbers" in refusal(tmp_path, base | dict(image_std=[0.5, 1]))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match="holds no config"):
        jf.load_images(tmp_path)


NAN = float("nan")


@pytest.mark.parametrize(
    "field",
    [
        dict(do_resize="no"),
        dict(do_normalize=0),
        dict(resample="big"),
        dict(resample=9),
        dict(crop_pct=0),
        dict(crop_pct=1.5),
        dict(rescale_factor="x"),
        dict(rescale_factor=0),
        dict(rescale_factor=NAN),
        dict(rescale_factor=True),
        dict(image_mean=[0.5, None, 0.5]),
        dict(image_std=[NAN] * 3),
        dict(image_std=[0, 1, 1]),
        dict(image_std=-1),
        dict(size=dict(height=3.5, width=3.5)),
        dict(size=dict(shortest_edge=0)),
        dict(size=True),
        dict(size=[8, 8]),
    ],
    ids=str,
)
def test_a_malformed_value_is_named_with_its_file_and_field(field, tmp_path):
    config = (
        dict(image_processor_type="ConvNextImageProcessor", size=dict(shortest_edge=24)) | field
    )
    message = refusal(tmp_path, config)
    (name,) = field
    assert re.search(rf"preprocessor_config.json: {name} .* (not|neither) ", message)


def test_paths_bytes_images_and_arrays_give_the_same(tmp_path):
    array = GOLDEN["picture_wide"]
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    form = Preprocessing(8)
    several = form([array, Image.fromarray(array), stream.getvalue(), tmp_path / "a.png"])
    assert several.shape == (4, 8, 8, 3)
    assert all(np.array_equal(pixels, form(str(tmp_path / "a.png"))[0]) for pixels in several)
    assert np.array_equal(form(np.stack([array, array])), several[:2])
    for path in (tmp_path / "a.png", epath.Path(tmp_path / "a.png")):
        assert np.array_equal(form(path), several[:1])


def test_a_pair_is_height_and_width():
    pixels = GOLDEN["picture_wide"]  # 21 x 34
    assert Preprocessing((8, 12))(pixels).shape == (1, 8, 12, 3)
    assert Preprocessing((12, 12)) == Preprocessing(12)
    middle = Preprocessing((10, 20), rule="none")
    with pytest.raises(DataError, match="34 x 21 is not 20 x 10"):
        middle(pixels)
    cut = Preprocessing((21, 30), 30, "small")
    assert cut.pixels(pixels).shape == (1, 21, 30, 3)
    batch = np.repeat(pixels[None], 2, 0)
    assert np.array_equal(Preprocessing((21, 34)).arrays(batch, None), batch)


def test_grey_pictures_serve_both_kinds_of_models():
    grey = GOLDEN["picture_square"][..., 0]
    coloured, plain = Preprocessing(16)(grey), Preprocessing(16, **GREY)(grey[..., None])
    assert coloured.shape[-1] == 3 and plain.shape[-1] == 1
    assert np.array_equal(coloured[..., 2], plain[..., 0])


def test_one_mean_stands_for_all_channels_and_is_saved_for_all(tmp_path):
    form = Preprocessing(8, channels=3, mean=(0.286,), std=(0.353,))
    assert form == Preprocessing(8, mean=(0.286,) * 3, std=(0.353,) * 3)
    write_preprocessing(form, tmp_path)
    read = jf.load_images(tmp_path)
    assert read == form and read(GOLDEN["picture_wide"]).shape == (1, 8, 8, 3)
    # As runs of earlier versions saved it.
    file = tmp_path / "preprocessor_config.json"
    fields = json.loads(file.read_text()) | dict(image_mean=[0.286], image_std=[0.353])
    assert jf.load_images(write_config(tmp_path, fields)) == form
    mixed = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5,))
    assert mixed.std == (0.5,) * 3


def test_a_device_normalises_as_the_host_does():
    pixels = GOLDEN["picture_wide"][None]
    form = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    on_device = form.normalised(jnp.asarray(pixels))
    np.testing.assert_allclose(on_device, form.normalised(pixels), atol=1e-6)


def test_bad_pictures_and_forms_are_named(tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    for picture, message in (
        (tmp_path / "bad.jpg", "bad.jpg"),
        (tmp_path / "none.jpg", "cannot read .*none.jpg"),
        (np.zeros((3, 3, 2), np.uint8), "picture 1 is uint8"),
        (3, "picture 1 is int"),
        (np.zeros((0, 9, 3), np.uint8), "picture 1 is empty"),
        (np.zeros((9, 0), np.uint8), "picture 1 is empty"),
    ):
        with pytest.raises(DataError, match=message):
            Preprocessing(8)([picture])
    for picture in (None, 3):
        with pytest.raises(DataError, match="is no picture, nor several"):
            Preprocessing(8)(picture)
    with pytest.raises(ConfigError, match="fit into"):
        Preprocessing(16, 8)
    for sizes in (((16, 24), 20), (16, (20, 15)), ((0, 4),)):
        with pytest.raises(ConfigError, match=r"fit into|at least 1"):
            Preprocessing(*sizes)
    with pytest.raises(ConfigError, match="resize None must be one number"):
        Preprocessing((16, 24), rule="small")
    with pytest.raises(ConfigError, match=r"rule is 'smal'.*did you mean small"):
        Preprocessing(16, rule="smal")
    with pytest.raises(ConfigError, match="3 numbers each"):
        Preprocessing(16, mean=(0.1, 0.2))
    for field in (dict(std=(0.5, NAN, 0.5)), dict(std=(0.0,)), dict(scale=NAN), dict(scale=0.0)):
        with pytest.raises(ConfigError, match=f"{next(iter(field))} is .*; it is above 0"):
            Preprocessing(16, **field)
    with pytest.raises(ConfigError, match=r"mean is .*; it is any finite number"):
        Preprocessing(16, mean=(NAN,))
