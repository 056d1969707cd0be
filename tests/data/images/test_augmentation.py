import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxformers.data.images import (
    AsIs,
    Augmentation,
    CentralCrop,
    ColorJitter,
    InceptionCrop,
    PaddedCrop,
    Preprocessing,
    RandAugment,
    RandomCrop,
    RandomErasing,
    WholeImage,
)
from jaxformers.data.images.augment import crops
from jaxformers.data.images.augment.crops import Frame
from jaxformers.data.images.augment.randaugment import TIMM, WORDS
from jaxformers.data.images.decoding import ColourRule
from jaxformers.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
Y, X = np.mgrid[:60, :90]
SMOOTH = np.stack([2 * X, 4 * Y, X + Y], -1).astype(np.uint8)
PICTURE = Image.fromarray(SMOOTH)
NOISE = Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8))
SQUARES = RandomCrop, CentralCrop
EXACT = dict(fast=False, flip=0.0)
HUES = {
    0.08: [[200, 126, 10], [16, 180, 166], [70, 70, 70], [103, 30, 250]],
    -0.31: [[68, 10, 200], [180, 112, 16], [70, 70, 70], [30, 250, 30]],
}


def array(picture):
    return np.asarray(picture)


def drawn(transform, picture, u=None):
    return transform.picture(picture, np.full(transform.draws, 0.5) if u is None else u)


def test_an_inception_crop_keeps_area_and_aspect_within_bounds():
    crop = InceptionCrop((0.2, 0.5), (0.5, 2.0))
    boxes = [crop.box((400, 300), RNG.random(40)) for _ in range(500)]
    sizes = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    shares, aspects = sizes.prod(1) / 120_000, sizes[:, 0] / sizes[:, 1]
    assert 0.195 < shares.min() < 0.22 and 0.48 < shares.max() < 0.505
    assert 0.49 < aspects.min() < 0.55 and 1.8 < aspects.max() < 2.03
    assert abs(np.log(aspects).mean()) < 0.1  # uniform in the logarithm
    assert all(b[0] >= 0 and b[1] >= 0 and b[2] <= 400 and b[3] <= 300 for b in boxes)
    assert min(b[0] for b in boxes) < 10 and max(b[3] for b in boxes) > 290


def test_an_inception_crop_that_never_fits_is_the_largest_central_one():
    crop = InceptionCrop((1.0, 1.0), (0.75, 4 / 3))
    assert crop.box((1000, 100), np.full(40, 0.3)) == (433, 0, 566, 100)
    assert crop.box((100, 1000), np.full(40, 0.3)) == (0, 433, 100, 566)


def test_the_crop_is_what_pillow_cuts_and_resizes():
    crop, u = InceptionCrop((0.3, 0.6)), RNG.random(41)
    form = Augmentation(24, 3, crop, interpolation="bicubic", **EXACT)
    expected = PICTURE.crop(crop.box(PICTURE.size, u[1:])).resize((24, 24), Image.BICUBIC)
    assert np.array_equal(form.picture(PICTURE, u), array(expected))


@pytest.mark.parametrize("u, left, top", [(0.0, 0, 0), (0.5, 18, 5), (0.999, 35, 10)])
def test_a_random_crop_is_a_square_of_the_resized_picture(u, left, top):
    form = Augmentation(40, 3, RandomCrop(50), **EXACT)
    resized = PICTURE.resize((75, 50), Image.BILINEAR)
    expected = resized.crop((left, top, left + 40, top + 40))
    assert np.array_equal(drawn(form, PICTURE, np.full(3, u)), array(expected))


def test_a_central_crop_is_the_random_ones_middle():
    middle = drawn(Augmentation(40, 3, CentralCrop(50), **EXACT), PICTURE)
    assert np.array_equal(middle, drawn(Augmentation(40, 3, RandomCrop(50), **EXACT), PICTURE))


@pytest.mark.parametrize("size", [(3, 40), (40, 3), (1, 30)])
def test_a_thin_picture_is_resized_in_the_square_alone(size, monkeypatch):
    picture = Image.fromarray(RNG.integers(0, 256, (*size[::-1], 3), np.uint8))
    transforms = [Augmentation(24, 3, crop(32), **EXACT) for crop in SQUARES]
    transforms += [Preprocessing.central(24, 0.75)]
    u = RNG.random(transforms[0].draws)
    unlimited = [transform.picture(picture, u[: transform.draws]) for transform in transforms]
    monkeypatch.setattr(crops, "MOST_PIXELS", 2000)
    monkeypatch.setattr(Image.Image, "crop", lambda *_: pytest.fail("made whole"))
    for transform, expected in zip(transforms, unlimited, strict=True):
        actual = transform.picture(picture, u[: transform.draws])
        assert np.abs(actual.astype(int) - expected).max() <= 1


def test_a_picture_one_pixel_wide_is_never_made_large(monkeypatch):
    picture, resize, sizes = Image.new("RGB", (1, 20_000)), Image.Image.resize, []

    def noted(picture, size, *args):
        sizes.append(size)
        return resize(picture, size, *args)

    monkeypatch.setattr(Image.Image, "resize", noted)
    assert Preprocessing.central(224)([picture]).shape == (1, 224, 224, 3)
    assert sizes == [(224, 224)]


def test_a_padded_crop_shows_black_margins():
    form = Augmentation(20, 3, PaddedCrop(4), **EXACT)
    square = NOISE.crop((0, 0, 20, 20))
    first = drawn(form, square, np.zeros(3))
    assert not first[:4].any() and not first[:, :4].any()
    assert np.array_equal(first[4:, 4:], array(square)[:16, :16])
    assert np.array_equal(drawn(form, square), array(square))  # nine places: the fifth is no shift
    last = drawn(form, square, np.full(3, 0.9999))
    assert np.array_equal(last[:16, :16], array(square)[4:, 4:])
    with pytest.raises(DataError, match="30 x 20 with a margin of 4 is smaller than 64"):
        drawn(Augmentation(64, 3, PaddedCrop(4)), NOISE)


def test_the_whole_picture_is_resized_or_left_as_it_is():
    output = drawn(Augmentation(16, 3, WholeImage(), **EXACT), PICTURE)
    assert np.array_equal(output, array(PICTURE.resize((16, 16), Image.BILINEAR)))
    square = NOISE.crop((0, 0, 16, 16))
    assert np.array_equal(drawn(Augmentation(16, 3, AsIs(), **EXACT), square), array(square))
    with pytest.raises(DataError, match="is not 16 x 16"):
        drawn(Augmentation(16, 3, AsIs()), NOISE)


@pytest.mark.parametrize("fast", [True, False])
def test_every_crop_gives_the_height_and_width_that_are_asked_for(fast):
    for crop in (
        InceptionCrop(),
        RandomCrop(32),
        CentralCrop(32),
        PaddedCrop(2),
        WholeImage(),
    ):
        assert drawn(Augmentation((16, 30), crop=crop, fast=fast), PICTURE).shape == (16, 30, 3)
    assert drawn(Augmentation((60, 90), crop=AsIs()), PICTURE).shape == (60, 90, 3)
    middle = drawn(Augmentation((16, 30), crop=CentralCrop(60), **EXACT), PICTURE)
    assert np.array_equal(middle, SMOOTH[22:38, 30:60])
    with pytest.raises(ConfigError, match=r"a crop of \(16, 30\) does not fit"):
        Augmentation((16, 30), crop=CentralCrop(20))


def test_flips_come_by_their_chance():
    form = Augmentation(20, 3, AsIs(), flip=0.3)
    square = NOISE.crop((0, 0, 20, 20))
    assert np.array_equal(drawn(form, square, np.array([0.29])), array(square)[:, ::-1])
    assert np.array_equal(drawn(form, square, np.array([0.31])), array(square))


def test_fast_decoding_differs_by_little():
    stream = io.BytesIO()
    waves = 127 + 60 * (np.sin(X / 9) + np.cos(Y / 7))
    big = Image.fromarray(waves.astype(np.uint8)).convert("RGB").resize((900, 600), Image.BICUBIC)
    big.save(stream, "JPEG", quality=95)
    for crop in (InceptionCrop(), RandomCrop(80), CentralCrop(80), WholeImage()):
        u = RNG.random(1 + crop.draws)
        fast, exact = (
            Augmentation(64, 3, crop, fast=fast).picture(Image.open(stream), u).astype(int)
            for fast in (True, False)
        )
        assert np.abs(fast - exact).mean() < 1.5 and np.abs(fast - exact).max() < 24


def test_a_fast_crop_decodes_only_what_it_needs():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((600, 900), np.uint8)).save(stream, "JPEG")
    picture = Image.open(stream)
    WholeImage()(picture, Frame(64, ColourRule(1), "bilinear", True), np.zeros(0))
    assert picture.size == (113, 75)


def test_grey_and_colours_are_what_is_asked_for():
    grey = NOISE.convert("L")
    assert drawn(Augmentation(8, 1), NOISE).shape == (8, 8, 1)
    coloured = drawn(Augmentation(8, 3), grey)
    assert coloured.shape == (8, 8, 3) and np.array_equal(coloured[..., 0], coloured[..., 2])


def operation(name, form=None, magnitude=9.0, sign=0.0, picture=PICTURE):
    """The picture after one operation of a magnitude without deviation."""
    form = form or RandAugment(1, magnitude, deviation=0.0)
    u = np.zeros(form.draws)
    names = (*TIMM, "cutout") if form.cutout else TIMM
    u[:WORDS] = (names.index(name) + 0.5) / len(names), 0.0, 0.5, sign, 0.5
    return array(form(picture, u))


def test_the_operations_are_pillows_at_timms_magnitudes():
    enhancers = dict(
        color=ImageEnhance.Color,
        contrast=ImageEnhance.Contrast,
        brightness=ImageEnhance.Brightness,
        sharpness=ImageEnhance.Sharpness,
    )
    for name, kind in enhancers.items():
        for sign, factor in ((0.0, 1.81), (0.9, 0.19)):
            expected = array(kind(PICTURE).enhance(factor)).astype(int)
            assert abs(operation(name, sign=sign) - expected).max() <= 1
    assert np.array_equal(operation("autocontrast"), array(ImageOps.autocontrast(PICTURE)))
    assert np.array_equal(operation("equalize"), array(ImageOps.equalize(PICTURE)))
    assert np.array_equal(operation("invert"), 255 - SMOOTH)
    assert np.array_equal(operation("posterize"), SMOOTH & 0b1000_0000)
    assert np.array_equal(operation("solarize"), np.where(SMOOTH < 26, SMOOTH, 255 - SMOOTH))
    assert not operation("posterize", magnitude=10.0).any()
    added = np.where(SMOOTH < 128, np.minimum(SMOOTH.astype(int) + 99, 255), SMOOTH)
    assert np.array_equal(operation("solarize_add"), added)


def test_geometry_moves_by_timms_magnitudes_and_fills_with_the_mean():
    fill = (124, 116, 104)
    turned = PICTURE.rotate(27, Image.BICUBIC, fillcolor=fill)
    assert np.array_equal(operation("rotate"), array(turned))
    moved = operation("translate_x", magnitude=10 * 18 / (0.45 * 90))
    assert np.array_equal(moved[:, :72], SMOOTH[:, 18:]) and (moved[:, 73:] == fill).all()
    back = operation("translate_y", magnitude=10 * 9 / (0.45 * 60), sign=0.9)
    assert abs(back[9:].astype(int) - SMOOTH[:51]).max() <= 1 and (back[:8] == fill).all()
    for name, matrix in (("shear_x", (1, 0.27, 0, 0, 1, 0)), ("shear_y", (1, 0, 0, 0.27, 1, 0))):
        form = Image.Transform.AFFINE
        sheared = PICTURE.transform(PICTURE.size, form, matrix, Image.BICUBIC, fillcolor=fill)
        assert np.array_equal(operation(name), array(sheared))


def test_googles_conventions_grow_weaker_where_theirs_do():
    form = RandAugment.big_vision(1, 5.0, size=90)
    assert np.array_equal(operation("posterize", form), SMOOTH & 0b1100_0000)
    assert np.array_equal(operation("solarize", form), np.where(SMOOTH < 128, SMOOTH, 255 - SMOOTH))
    assert np.array_equal(operation("color", form), SMOOTH)  # factor 0.1 + 1.8 / 2
    hole = operation("cutout", form)
    assert (hole[10:50, :20] == 128).all() and np.array_equal(hole[:, 20:], SMOOTH[:, 20:])
    assert form.probability == 1.0 and form.deviation == 0.0


def test_every_operation_is_drawn_and_half_of_them_are_done():
    form, counts = RandAugment(), []
    for u in RNG.random((300, form.draws)):
        counts.append(not np.array_equal(array(form(NOISE, u)), array(NOISE)))
    assert 0.65 < np.mean(counts) < 0.82  # 1 - 1/4, less the operations that change nothing
    operations = {
        int(w * len(TIMM)) for u in RNG.random((300, form.draws)) for w in u[:WORDS:WORDS]
    }
    assert operations == set(range(len(TIMM)))
    grey = array(form(NOISE.convert("L"), np.full(form.draws, 0.2)))
    assert grey.ndim == 2


def test_only_the_named_operations_are_drawn():
    form = RandAugment(1, deviation=0.0, probability=1.0, operations=("rotate", "color"))
    for share, name in ((0.1, "rotate"), (0.9, "color")):
        u = np.array([share, 0.0, 0.5, 0.0, 0.5, 0.5])
        assert np.array_equal(array(form(PICTURE, u)), operation(name))
    for operations in ((), ("blur",)):
        with pytest.raises(ConfigError, match="must be some of autocontrast, equalize"):
            RandAugment(operations=operations)


def test_the_magnitude_is_drawn_around_its_mean_and_cut():
    form = RandAugment(1, 9.0, deviation=0.5)
    u = np.zeros(form.draws)
    u[:WORDS] = (TIMM.index("brightness") + 0.5) / len(TIMM), 0, 0.5, 0, 0
    middle = array(form(PICTURE, u)).mean()
    u[2] = 0.01
    weaker = array(form(PICTURE, u)).mean()
    u[2] = 1 - 1e-9
    strongest = array(form(PICTURE, u))
    assert weaker < middle < strongest.mean()
    assert np.array_equal(strongest, array(ImageEnhance.Brightness(PICTURE).enhance(1.9)))


def test_colour_jitter_is_torchvisions():
    u = np.array([0.0, 0.75, 0.25, 0.9, 0.9, 0.5])
    expected = ImageEnhance.Brightness(PICTURE).enhance(1.2)
    expected = ImageEnhance.Contrast(expected).enhance(0.8)
    expected = ImageEnhance.Color(expected).enhance(1 + 0.4 * 0.8)
    assert np.array_equal(array(ColorJitter(hue=0.0)(PICTURE, u)), array(expected))
    # torchvision 0.29.1: adjust_hue of these four pixels by 0.08 and -0.31.
    pixels = np.array([[[200, 40, 10], [15, 180, 90], [70, 70, 70], [30, 60, 250]]], np.uint8)
    for shift, shifted in HUES.items():
        strength = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=abs(shift))
        u = np.array([0.0, 0.5, 0.5, 0.5, 0.0 if shift < 0 else 1.0, 0.5])
        assert array(ColorJitter(**strength)(Image.fromarray(pixels), u)).tolist() == [shifted]
    still = np.array([0.9, 0.0, 0.0, 0.0, 0.0, 0.5])
    assert np.array_equal(array(ColorJitter()(PICTURE, still)), SMOOTH)
    grey = array(ColorJitter(grayscale=0.6)(PICTURE, still))
    assert np.array_equal(grey[..., 1], array(PICTURE.convert("L"))) and grey.shape == SMOOTH.shape
    assert ColorJitter(grayscale=0.6)(PICTURE.convert("L"), still).mode == "L"
    u = np.array([0.0, 0.75, 0.25, 0.9, 0.9, 0.5])
    expected = ImageEnhance.Brightness(PICTURE.convert("L")).enhance(1.2)
    expected = ImageEnhance.Contrast(expected).enhance(0.8)
    assert np.array_equal(array(ColorJitter()(PICTURE.convert("L"), u)), array(expected))


def test_augmentation_draws_apart_for_all_its_transforms():
    transforms = dict(distortions=RandAugment(), erasing=RandomErasing(), jitter=ColorJitter())
    form = Augmentation(24, 3, flip=0.0, **transforms)
    assert form.draws == 1 + sum(x.draws for x in (form.crop, *transforms.values()))
    u = np.concatenate([RNG.random(form.draws - 6), [0.9, 0, 0, 0, 0, 0.0]])
    plain = Augmentation(24, 3, flip=0.0, **transforms | dict(jitter=None))
    assert np.array_equal(form.picture(PICTURE, u), plain.picture(PICTURE, u[:-6]))
    squares = np.stack([SMOOTH[:20, :20]] * 2)
    jittered = Augmentation(20, 3, AsIs(), flip=0.0, jitter=ColorJitter())
    assert jittered.arrays(squares, np.zeros((2, jittered.draws))) is None


def test_erasing_writes_noise_of_the_datas_mean_into_a_rectangle():
    form = RandomErasing(1.0, mean=(0.5,), std=(0.1,))
    image = np.zeros((50, 60, 3), np.uint8)
    shares = []
    for u in RNG.random((200, form.draws)):
        erased = (form(image, u) > 0).any(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(erased.mean())
    assert min(shares) > 0.01 and max(shares) < 0.36
    values = form(image, u)[erased].astype(float)
    assert abs(values.mean() - 127.5) < 4 and abs(values.std() - 25.5) < 4
    assert not image.any()
    assert np.array_equal(RandomErasing(0.25)(image, np.full(42, 0.3)), image)


def test_impossible_fields_are_refused():
    for make in (
        lambda: Augmentation(0),
        lambda: Augmentation(8, 2),
        lambda: Augmentation(flip=1.2),
        lambda: InceptionCrop((0.0, 1.0)),
        lambda: InceptionCrop(aspect=(2.0, 1.0)),
        lambda: RandAugment(magnitude=11.0),
        lambda: RandAugment(interpolation="lanczos"),
        lambda: RandomErasing(2.0),
        lambda: RandomErasing(aspect=(0.0, 2.0)),
        lambda: RandomErasing(std=(-0.1,)),
        lambda: Augmentation(8, 1, erasing=RandomErasing()),
        lambda: Augmentation(8, 3, erasing=RandomErasing(mean=(0.1, 0.2))),
        lambda: Augmentation(8, interpolation="bicubik"),
        lambda: Augmentation(64, 3, RandomCrop(50)),
    ):
        with pytest.raises(ConfigError) as error:
            make()
        assert "\n" not in str(error.value)
