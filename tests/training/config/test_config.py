"""Experiments as tagged JSON and as files."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from jaxformers.errors import ConfigError
from jaxformers.sharding import MeshConfig
from jaxformers.training.config.experiment_files import digest, from_json, load_experiment, to_json


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    lengths: tuple[int, ...] = (1, 2)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    mesh: MeshConfig = MeshConfig()
    pairs: tuple[tuple[int, float], ...] = ()
    limit: int | None = None
    on: bool = False


CLASSES = (Inner, Outer)
SAMPLE = Outer(
    "ä\n", Inner(1e-17, (), "b"), MeshConfig(2, 4), ((1, math.inf), (2, 1.0)), None, True
)


def through_text(obj):
    return from_json(json.loads(json.dumps(to_json(obj), allow_nan=False)), CLASSES)


def complaint(data) -> str:
    with pytest.raises(ConfigError) as caught:
        from_json(data, CLASSES)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip_is_exact_down_to_types():
    back = through_text(SAMPLE)
    assert back == SAMPLE
    assert type(back.pairs[1][1]) is float and type(back.pairs) is tuple


def test_the_tag_names_module_and_class():
    assert to_json(MeshConfig())["$type"] == "jaxformers.sharding.mesh:MeshConfig"


def test_a_class_of_the_package_needs_no_registry():
    assert from_json(to_json(MeshConfig(fsdp=3))) == MeshConfig(fsdp=3)


def test_equal_objects_have_equal_digests_and_any_change_another():
    assert digest(SAMPLE) == digest(through_text(SAMPLE))
    changes = [dataclasses.replace(SAMPLE, on=False), dataclasses.replace(SAMPLE, name="a")]
    assert len({digest(SAMPLE), *map(digest, changes)}) == 3


def test_a_missing_field_takes_its_default():
    data = to_json(SAMPLE)
    del data["limit"], data["inner"]["rate"]
    assert from_json(data, CLASSES).inner.rate == 0.1


def test_unknown_and_missing_fields_are_named_in_one_line():
    data = to_json(SAMPLE) | {"widht": 3, "more": 4}
    del data["name"]
    assert "unknown fields: widht, more; missing fields: name" in complaint(data)


def test_a_value_of_the_wrong_type_is_named_by_its_path():
    data = to_json(SAMPLE)
    data["inner"]["lengths"] = [1, "two"]
    assert "inner.lengths" in complaint(data)


@pytest.mark.parametrize(
    "tag", ["os:system", "subprocess:Popen", "jaxformers.errors:UserError", "pathlib:Path", "x", ""]
)
def test_only_configurations_of_the_package_may_be_named(tag):
    assert repr(tag) in complaint({"$type": tag, "args": ["true"]})


def test_a_class_that_the_package_lacks_is_named():
    assert "jaxformers.nowhere:X" in complaint({"$type": "jaxformers.nowhere:X"})


def test_naming_a_module_outside_the_package_does_not_import_it(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "planted:X" in complaint({"$type": "planted:X"})


@pytest.mark.parametrize("value", [print, [1], {"a": 1}, Path("x"), b"x"])
def test_what_cannot_be_kept_is_named_by_its_path(value):
    with pytest.raises(ConfigError, match=r"Outer\.pairs"):
        to_json(dataclasses.replace(SAMPLE, pairs=value))


def write_experiment(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines no experiment(); add one that returns an Experiment"),
        ("def experiment():\n    return 3\n", "experiment() returned an int, not an Experiment"),
        ("x = 1\ndef broken(:\n", "mine.py:2: syntax error:"),
        ("x = 1\n\nboom()\n", "mine.py:3: NameError: name 'boom' is not defined"),
        ("def experiment():\n    return 1 / 0\n", "mine.py:2: ZeroDivisionError: division by zero"),
        ("import nowhere_to_be\n", "mine.py:1: ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_does_not_give_an_experiment_is_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError) as caught:
        load_experiment(write_experiment(tmp_path, text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_answered_with_near_misses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("experiments/translation").mkdir(parents=True)
    Path("experiments/translation/demo.py").write_text("")
    for wrong in ("experiments/translation/dmeo.py", "demo.py", "experiments/translation"):
        with pytest.raises(ConfigError, match=r"did you mean experiments/translation/demo\.py\?"):
            load_experiment(wrong)


OWN_CLASS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Own:
    size: int = 1
"""


def test_a_class_of_an_experiment_file_is_known_once_the_file_is_loaded(tmp_path):
    from jaxformers.training.config.experiment_files import load_module

    data = {"$type": "jaxformers_experiment_mine:Own", "size": 3}
    with pytest.raises(ConfigError, match=r"load that file first"):
        from_json(data)
    module = load_module(write_experiment(tmp_path, OWN_CLASS))
    assert from_json(to_json(module.Own(3))) == module.Own(3)
