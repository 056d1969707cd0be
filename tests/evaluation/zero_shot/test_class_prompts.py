"""Class names matched to the data's labels by name: OpenAI's lists and TFDS's label orders."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from jaxformers.errors import ConfigError, DataError
from jaxformers.evaluation.zero_shot import bundled_prompts, load_class_prompts

TFDS = Path(find_spec("tensorflow_datasets").origin).parent
# Classes, templates.
SIZES = {
    "caltech101": (102, 34),
    "cifar10": (10, 18),
    "cifar100": (100, 18),
    "dtd": (47, 8),
    "eurosat": (10, 3),
    "food101": (101, 1),
    "imagenet2012": (1000, 80),
    "mnist": (10, 1),
    "oxford_flowers102": (102, 1),
    "oxford_iiit_pet": (37, 1),
    "rendered_sst2": (2, 1),
}


def listed(file: str, variable: str = "") -> list[str]:
    """The labels in a text file, or in a list of a module, of the installed TFDS."""
    text = (TFDS / file).read_text()
    if not variable:
        return text.split()
    nodes = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    return next(ast.literal_eval(n.value) for n in nodes if n.targets[0].id == variable)


# Labels in TFDS's order, and at how many positions OpenAI's list has the same name.
TFDS_LABELS = {
    "caltech101": (listed("image_classification/caltech101_labels.txt"), 33),
    "dtd": (listed("image_classification/dtd_key_attributes.txt"), 47),
    "eurosat": (listed("image_classification/eurosat.py", "_LABELS"), 0),
    "food101": (listed("image_classification/food-101_classes.txt"), 99),
    "imagenet2012": (listed("datasets/imagenet2012/labels.txt"), 0),
    "oxford_flowers102": (
        listed("datasets/oxford_flowers102/oxford_flowers102_dataset_builder.py", "_NAMES"),
        100,
    ),
    "oxford_iiit_pet": (
        listed("datasets/oxford_iiit_pet/oxford_iiit_pet_dataset_builder.py", "_LABEL_CLASSES"),
        4,
    ),
}
EXPECTED = {
    "caltech101": {"faces": "off-center face", "faces_easy": "centered face", "yin_yang": "yin "
                   "and yang symbol", "background_google": "background", "accordion": "accordion"},
    "eurosat": {"AnnualCrop": "annual crop land", "SeaLake": "lake or sea", "Forest": "forest",
                "HerbaceousVegetation": "brushland or shrubland"},
    "imagenet2012": {"n01440764": "tench", "n02012849": "crane bird", "n03126707":
                     "construction crane", "n04008634": "missile", "n03773504": "missile"},
    "oxford_flowers102": {"ball moss": "air plant", "pink-yellow dahlia?": "pink and yellow dahlia",
                          "globe-flower": "globe flower"},
    "oxford_iiit_pet": {"Maine_Coon": "Maine Coon", "english_cocker_spaniel":
                        "english cocker spaniel", "shiba_inu": "shiba inu"},
}  # fmt: skip


def plain(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def test_the_sets_have_the_published_sizes():
    assert bundled_prompts() == sorted(SIZES)
    for name, sizes in SIZES.items():
        prompts = load_class_prompts(name)
        assert (len(prompts.names), len(prompts.template_set())) == sizes
    assert len(set(load_class_prompts("imagenet2012").names)) == 998
    flowers = load_class_prompts("oxford_flowers102:2.1.1")
    assert flowers.template_set() == ("a photo of a {}, a type of flower.",)
    assert flowers.template_set("homework") == ("An image of {}, a type of flower",)
    assert flowers.metric == "mean_per_class" and load_class_prompts("cifar10").metric == "accuracy"


@pytest.mark.parametrize("name", sorted(TFDS_LABELS))
def test_tfds_labels_match_by_name_in_any_order(name):
    labels, same_position = TFDS_LABELS[name]
    prompts = load_class_prompts(name)
    names = prompts.names_for(labels)
    assert sorted(names) == sorted(prompts.names)
    equal = [plain(a) == plain(b) for a, b in zip(labels, prompts.names, strict=True)]
    assert sum(equal) == same_position
    by_label = dict(zip(labels, names, strict=True))
    assert by_label.items() >= EXPECTED.get(name, {}).items()
    for label, match in by_label.items():
        row = prompts.labels[prompts.names.index(match)]
        assert plain(label) == plain(match) or label in row or name == "imagenet2012"
    if name == "imagenet2012":  # names come in the order of the WordNet ids
        assert names == prompts.names
    order = np.random.default_rng(0).permutation(len(labels))
    assert prompts.names_for([labels[k] for k in order]) == tuple(names[k] for k in order)


def test_labels_may_be_fewer_and_of_any_spelling():
    pets = load_class_prompts("oxford_iiit_pet")
    assert pets.names_for(["shiba inu", "ABYSSINIAN"]) == ("shiba inu", "Abyssinian")
    assert load_class_prompts("cifar100").names_for(["sweet_pepper"]) == ("sweet pepper",)
    names = load_class_prompts("imagenet2012").names
    assert load_class_prompts("imagenet2012").names_for(names) == names  # two names occur twice


def write(folder, **content) -> str:
    path = folder / "classes.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_a_file_of_ones_own(tmp_path):
    path = write(tmp_path, classes=["a cat", ["a dog", "n02", "hund"]], templates=["{}!"])
    prompts = load_class_prompts(path)
    assert prompts.names_for(["Hund", "a_cat"]) == ("a dog", "a cat")
    assert prompts.template_set() == ("{}!",)
    path = write(tmp_path, classes=["x", "x"], templates={"long": ["a {}"], "short": ["{}"]})
    prompts = load_class_prompts(path)
    assert prompts.template_set("short") == ("{}",) and prompts.names_for(["x"]) == ("x",)


def refused(kind, call, *args) -> str:
    with pytest.raises(kind) as raised:
        call(*args)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_faulty_names_and_files_are_refused_in_one_line(tmp_path):
    pets = load_class_prompts("oxford_iiit_pet")
    message = refused(DataError, pets.names_for, ["Beagle", "beegle", "x"])
    assert "2 of the data's 3 class names" in message and "did you mean" in message
    assert "no class names" in refused(DataError, pets.names_for, [])
    assert "all match 'beagle'" in refused(DataError, pets.names_for, ["Beagle", "beagle"])
    assert "did you mean" in refused(ConfigError, load_class_prompts, "oxford_flower102")
    assert "homework" in refused(
        ConfigError, load_class_prompts("oxford_flowers102").template_set, "homewrk"
    )
    load = load_class_prompts
    assert "No such file" in refused(DataError, load, str(tmp_path / "none.json"))
    ambiguous = load(write(tmp_path, classes=[["a", "x"], ["b", "X"]], templates=["{}"]))
    assert ambiguous.names_for(["x"]) == ("a",)
    assert "or several" in refused(DataError, ambiguous.names_for, ["x."])
    for content in (
        {"classes": [], "templates": ["{}"]},
        {"classes": ["a", 3], "templates": ["{}"]},
        {"classes": ["a", [" "]], "templates": ["{}"]},
        {"classes": ["a"], "templates": ["a photo"]},
        {"classes": ["a"], "templates": {}},
        {"classes": ["a"], "templates": "{}"},
        {"classes": ["a"]},
        {"classes": ["a"], "templates": ["{}"], "metric": "f1"},
    ):
        assert "classes.json" in refused(DataError, load, write(tmp_path, **content))
    (tmp_path / "classes.json").write_text("[" * 100_000)
    assert "JSON" in refused(DataError, load, str(tmp_path / "classes.json"))
