"""The paper's mixtures: every data set of the table, its shares, and what a folder must hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxformers.cli import command
from jaxformers.data.mixture import PAPER_DATASETS, open_mixture
from jaxformers.errors import DataError
from jaxformers.tasks.text_image import (
    MULTITASK_GROUPS,
    PRETRAINING_GROUPS,
    VQA,
    TextDenoising,
    TextEntailment,
    paper_mixture,
)
from jaxformers.tasks.text_image.paper_mixture import TASKS, TFDS_FEATURES
from jaxformers.tasks.text_image.records import english_names

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments" / "unified_io"


def test_every_task_of_every_set_is_in_one_group():
    words = [word for group in MULTITASK_GROUPS.values() for word in group.tasks]
    assert sorted([*words, "image_denoise"]) == sorted(TASKS)
    pairs = {f"{d.name}_{task}" for d in PAPER_DATASETS.values() for task in d.tasks}
    mixtures = [paper_mixture("data", g) for g in (MULTITASK_GROUPS, PRETRAINING_GROUPS)]
    assert pairs == {name for mixture in mixtures for name in mixture.names}
    assert {name for name, _ in TFDS_FEATURES} <= set(PAPER_DATASETS)


def test_groups_have_the_papers_shares_and_divide_them_by_square_roots():
    mixture = paper_mixture("data")
    sizes = {name: 100 + 7 * number for number, name in enumerate(mixture.names)}
    shares = dict(zip(sizes, mixture.shares(sizes)[0][1], strict=True))
    sums = [sum(shares[name] for name in group.tasks) for group in mixture.groups]
    np.testing.assert_allclose(sums, [3 / 16, 1 / 8, 1 / 16, *[1 / 8] * 5])
    questions = mixture.groups[5].tasks
    ratio = (sizes[questions[0]] / sizes[questions[1]]) ** 0.5
    np.testing.assert_allclose(shares[questions[0]] / shares[questions[1]], ratio)


def test_features_that_a_set_of_tfds_is_read_by_are_those_of_its_task():
    mixture = paper_mixture("data")
    for name, word in TFDS_FEATURES:
        task = mixture.entry(f"{name}_{word}").task
        assert set(dict(task.source.features)) == set(task.FEATURES)
        assert task.source.data_dir == "data"
        assert task.source.name == PAPER_DATASETS[name].tfds
    assert isinstance(mixture.entry("mnli_text_classify").task, TextEntailment)
    assert isinstance(mixture.entry("wikipedia_text_denoise").task, TextDenoising)
    assert mixture.entry("vqa_v2_vqa").task == VQA(mixture.entry("vqa_v2_vqa").task.source)


def test_classes_of_imagenet_are_named_in_english():
    assert english_names(("n01440764", "n01443537")) == ("tench", "goldfish")
    assert english_names(("airfield", "n01440764")) == ("airfield", "n01440764")


def test_missing_sets_are_listed_and_the_others_are_read(tmp_path):
    folder = tmp_path / "gqa"
    folder.mkdir()
    Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(folder / "a.png")
    record = {"image": "a.png", "question": "What is it ?", "answers": ["a cat"]}
    (folder / "vqa.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=r"110 of 111 tasks lack data: .*gigaword is not prepared"):
        open_mixture(paper_mixture(str(tmp_path)))
    opened = open_mixture(paper_mixture(str(tmp_path), without_missing=True))
    assert opened.names == ("gqa_vqa",)
    assert opened.examples["gqa_vqa"].sample(0, 0).text == "a cat"


def test_the_task_that_the_experiment_of_fine_tuning_declares_reads_its_folder(tmp_path, capsys):
    Image.fromarray(np.full((8, 12, 3), 99, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "train.jsonl").write_text('{"image": "a.png", "year": 1937}\n')
    file = str(EXPERIMENTS / "finetune.py")
    arguments = ["describe", file, "--data", str(tmp_path), "--example", "decade"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "target text     1930s" in printed and "input picture   12 x 8" in printed
