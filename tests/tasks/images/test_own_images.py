"""A folder of one's own images in one command: what is set from it, the report, the warnings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image, ImageDraw

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.data.images import (
    Augmentation,
    BundledFashionMnist,
    HeldOut,
    ImageFolder,
    ImageTable,
    InceptionCrop,
    PaddedCrop,
    Preprocessing,
)
from jaxformers.errors import ConfigError
from jaxformers.interpret.figures import save
from jaxformers.models import ViT, ViTConfig
from jaxformers.pretrained.preprocessing.preprocessor_config import write_preprocessing
from jaxformers.tasks.images import image_report
from jaxformers.tasks.images.image_warnings import image_warnings
from jaxformers.tasks.images.own_images import classification, own_images
from jaxformers.training.config.experiment_arguments import split_arguments
from jaxformers.training.config.experiment_files import call_experiment, load_function
from jaxformers.training.run_directory import read_experiment

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
MAE_DEMO = EXPERIMENTS / "mae" / "demo.py"
FILES = [EXPERIMENTS / family / "own_folder.py" for family in ("vit", "resnet", "mae")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty photos of odd sizes in three classes."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.RandomState(0)
    for i in range(30):
        width, height = rng.randint(60, 90, 2).tolist()
        image = Image.new("RGB", (width, height), tuple(rng.randint(90, 256, 3).tolist()))
        draw, name = ImageDraw.Draw(image), ("disc", "box", "bars")[i % 3]
        if name == "bars":
            for x in range(0, width, 12):
                draw.rectangle((x, 0, x + 5, height), fill=(40, 0, 80))
        else:
            shape = draw.ellipse if name == "disc" else draw.rectangle
            shape((10, 10, 45, 45), fill=(40, 0, 80))
        (folder / name).mkdir(exist_ok=True)
        image.save(folder / name / f"{i}.jpg")
    return folder


def of_file(file, **values):
    return call_experiment(load_function(file), file, **values)


@pytest.mark.parametrize("file", FILES, ids=["vit", "resnet", "mae"])
def test_everything_that_the_folder_tells_is_set_from_it(file, photos):
    experiment = of_file(file, data=str(photos))
    for run in (experiment, *experiment.after):
        task, model = run.task, run.task.model
        assert isinstance(task.data, HeldOut) and task.data.source.path == str(photos)
        assert model.image_size == task.augmentation.size == task.preprocessing.size
        assert model.image_size == 64 and model.channels == 3
        pixels = Preprocessing(64)([str(path) for path in photos.rglob("*.jpg")]) / 2 + 0.5
        np.testing.assert_allclose(task.preprocessing.mean, pixels.mean((0, 1, 2)), atol=0.03)
        np.testing.assert_allclose(task.preprocessing.std, pixels.std((0, 1, 2)), atol=0.03)
        assert run.schedule.warmup < run.steps and run.evaluate_every <= run.steps
    classifiers = [r.task for r in (experiment, *experiment.after) if hasattr(r.task, "objective")]
    assert [task.model.classes for task in classifiers] == [3]
    assert classifiers[0].data.other("dev").open().classes == 3


def test_sizes_of_photos_and_of_icons_suit_their_patches(tmp_path):
    for side, size, patch in ((400, 224, 16), (130, 128, 16), (100, 96, 8), (28, 28, 4), (9, 8, 2)):
        folder = tmp_path / str(side)
        for name in "ab":
            (folder / name).mkdir(parents=True)
            for i in range(2):
                Image.new("L", (side + 20, side), i).save(folder / name / f"{i}.png")
        images = own_images(str(folder))
        assert (images.size, images.patch_size, images.channels) == (size, patch, 1)
        assert own_images(str(folder), size=48).size == 48
    with pytest.raises(ConfigError, match="no multiple of 2"):
        _ = own_images(None, size=27).patch_size


def test_published_weights_keep_their_preprocessing_at_any_size(photos, tmp_path):
    config = ViTConfig(28, 7, 3, width=8, heads=2, feed_forward=8, layers=1, classes=5)
    variables = ViT(config).init(jax.random.key(0), np.zeros((1, 28, 28, 3), np.float32))
    jf.save_pretrained(ViT(config), variables, tmp_path / "published")
    preprocessing = Preprocessing(28, 32, "small", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    write_preprocessing(preprocessing, tmp_path / "published")
    weights = str(tmp_path / "published")
    task = of_file(FILES[0], data=str(photos), weights=weights).task
    assert task.preprocessing == preprocessing and task.weights == weights
    assert task.model == replace(config, classes=3)
    task = of_file(FILES[0], data=str(photos), weights=weights, size=35).task
    assert (task.preprocessing.size, task.preprocessing.resize) == (35, 40)
    assert task.preprocessing.mean == preprocessing.mean and task.model.image_size == 35
    with pytest.raises(ConfigError, match="36 pixels do not divide"):
        of_file(FILES[0], data=str(photos), weights=weights, size=36)


def test_labels_come_from_a_table_beside_the_images_or_elsewhere(photos, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    lines = ["file_name,labels"]
    for path in sorted(photos.rglob("*.jpg")):
        shutil.copy(path, folder / path.name)
        lines.append(f"{path.name},{path.parent.name}|photo")
    table = tmp_path / "elsewhere.csv"
    table.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match="has no classes: put the images of each class"):
        of_file(FILES[0], data=str(folder))
    assert not of_file(FILES[2], data=str(folder)).after  # nothing to fine-tune on
    for labels in (str(table), None):
        if labels is None:
            shutil.copy(table, folder / "labels.csv")
        task = of_file(FILES[0], data=str(folder), labels=labels).task
        assert isinstance(task.data.source, ImageTable)
        assert task.multi_label and task.objective == "sigmoid" and task.model.classes == 4


def test_a_development_set_of_the_folder_is_used(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "split" / "train")
    shutil.copytree(photos, tmp_path / "split" / "val")
    data = own_images(str(tmp_path / "split")).data
    assert isinstance(data, ImageFolder) and data.other("dev").split == "dev"


# ---------------------------------------------------------------- the command


def two_steps(file, photos, folder):
    words = ["--size", "16", "--steps", "2", "--schedule.warmup", "1", "--task.rows", "8"]
    if file.parent.name == "vit":
        words += ["--task.model.layers", "1"]
    return main(["train", str(file), "--data", str(photos), "--folder", str(folder), *words])


def check_run(file, photos, folder, capsys):
    assert two_steps(file, photos, folder) == 0
    text = capsys.readouterr().out
    assert "16 x 16 x 3 pixels" in text and "warning" not in text
    assert main(["evaluate", str(folder)]) == 0
    last = folder / "fine_tuned" if (folder / "fine_tuned").exists() else folder
    report = (last / "report.md").read_text()
    assert "## Confusion matrix, development set" in report
    assert (last / "confusion_matrix_development_set.png").exists()
    assert "- disc: " in report and "## Files of the most wrong images" in report
    path = next(photos.rglob("*.jpg"))
    assert main(["classify-image", str(last), str(path)]) == 0
    assert "disc" in capsys.readouterr().out
    assert read_experiment(folder).task.data.source.path == str(photos)


def test_one_command_trains_on_ones_own_folder(photos, tmp_path, capsys):
    check_run(FILES[0], photos, tmp_path / "run", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES[1:], ids=["resnet", "mae"])
def test_so_do_the_commands_of_other_families(file, photos, tmp_path, capsys):
    check_run(file, photos, tmp_path / "run", capsys)


@pytest.mark.parametrize("file", FILES, ids=["vit", "resnet", "mae"])
def test_warm_up_and_intervals_follow_from_the_number_of_epochs(file, photos):
    function = load_function(file)
    values, words = split_arguments(function, ["--data", str(photos), "--epochs", "5"])
    experiment = call_experiment(function, file, **values)
    assert not words and experiment.epochs == 5
    assert experiment.schedule.warmup == experiment.steps // 10
    assert experiment.evaluate_every <= experiment.steps


def test_a_follow_up_run_of_other_classes_is_refused_before_the_first_begins(
    photos, tmp_path, capsys
):
    words = ["--task.data", "image-folder", "--task.data.path", str(photos), "--steps", "2"]
    folder = tmp_path / "run"
    assert main(["train", str(MAE_DEMO), "--folder", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert "follow-up run linear_probe: " in error and "has 3 classes, but the model 10" in error
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data"], "--data: takes one value"),
        (["--data", "no/such"], "there is no folder"),
        (["--data", "PHOTOS", "--size", "big"], "--size: 'big' is not an int"),
        (["--data", "PHOTOS", "--size", "17"], "size 17 is no multiple of 2"),
        (["--data", "PHOTOS", "--labels", "no.csv"], "there is no table of labels"),
        ([], "give --data FOLDER"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(words, message, photos, tmp_path, capsys):
    words = [str(photos) if word == "PHOTOS" else word for word in words]
    assert main(["train", str(FILES[0]), "--folder", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and "own_folder.py:" not in error


def test_help_lists_the_options_of_the_file(capsys):
    with pytest.raises(SystemExit):
        main(["train", str(FILES[0]), "--help"])
    text = capsys.readouterr().out
    assert "--data" in text and "--weights" in text and "--task.rows" in text


def test_arguments_have_the_types_of_the_parameters():
    def experiment(data: str | None = None, share: float = 0.1, size: int | None = None):
        return data, share, size

    words = ["--data", "X", "--steps", "3", "--share=0.5", "--size", "7", "--seed", "1"]
    values, remaining = split_arguments(experiment, words)
    assert values == {"data": "X", "share": 0.5, "size": 7}
    assert remaining == ["--steps", "3", "--seed", "1"]
    with pytest.raises(ConfigError, match="--share: 'much' is not a float"):
        split_arguments(experiment, ["--share", "much"])


# ---------------------------------------------------------------- report and warnings


def test_the_report_counts_confusions_and_shows_the_most_wrong(tmp_path):
    images = BundledFashionMnist("test", limit=12).open()
    logits = np.zeros((12, 10), np.float32)
    logits[np.arange(12), images.labels] = 3
    logits[4] = logits[7] = 0
    logits[4, (images.labels[4] + 1) % 10] = 9  # the most wrong
    logits[7, (images.labels[7] + 1) % 10] = 2
    names = images.class_names
    wrong = image_report.most_wrong(images, logits, names)
    assert [entry.index for entry in wrong] == [4, 7]
    assert wrong[0].expected == names[images.labels[4]] and wrong[0].predicted.endswith("100%")
    matrix = image_report.confusion_matrix(logits.argmax(-1), images.labels, 10)
    assert matrix.sum() == 12 and np.trace(matrix) == 10
    assert matrix[images.labels[4], (images.labels[4] + 1) % 10] >= 1
    lines = image_report.confusion_lines(matrix, names)
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == 2
    expected = np.eye(10, dtype=bool)
    lines = image_report.class_lines(expected[logits.argmax(-1)], expected[images.labels], names)
    assert len(lines) == 10 and len([line for line in lines if "never" in line]) < 10
    figure = image_report.most_wrong_figure(images, wrong)
    thumbnails = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(thumbnails) == 2 and all(np.ptp(pixels) > 100 for pixels in thumbnails)
    for drawn in (figure, image_report.confusion_figure(matrix, names)):
        assert save(drawn, tmp_path / "x.png").stat().st_size > 1000


def test_wrong_choices_are_warned_of(photos):
    images = ImageFolder(str(photos)).open()
    suited = Preprocessing(28, mean=(0.6, 0.6, 0.6), std=(0.3, 0.3, 0.3))
    augmentation = Augmentation(28, crop=InceptionCrop())
    assert not list(image_warnings(images, augmentation, suited))
    (line,) = image_warnings(images, Augmentation(28, crop=PaddedCrop(1)), suited)
    assert "windows of 28 pixels" in line and "--task.augmentation.crop inception-crop" in line
    (line,) = image_warnings(images, augmentation, replace(suited, mean=(120, 120, 120)))
    assert "far from preprocessing's mean 120 120 120" in line
    (line,) = image_warnings(images, augmentation, replace(suited, std=(90, 90, 90)))
    assert "far from" in line
    grey = Preprocessing(28, channels=1, mean=(0.6,), std=(0.3,))
    (line,) = image_warnings(images, replace(augmentation, channels=1), grey)
    assert "have colours" in line
    clothes = BundledFashionMnist(limit=40).open()
    grey = Preprocessing(28, channels=1, mean=(0.286,), std=(0.353,))
    assert not list(image_warnings(clothes, Augmentation(28, 1, PaddedCrop(1)), grey))


def test_a_single_class_is_refused(tmp_path):
    (tmp_path / "only").mkdir()
    for i in range(2):
        Image.new("RGB", (9, 9)).save(tmp_path / "only" / f"{i}.png")
    images = own_images(str(tmp_path))
    with pytest.raises(ConfigError, match="has 1 class: put"):
        classification(images, None)
