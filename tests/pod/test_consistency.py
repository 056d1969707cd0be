"""What hosts must have in common, and the sentences about what they have not."""

from __future__ import annotations

from jaxformers.pod.consistency import code_facts, disagreements, files_hash, flat


def test_a_configuration_is_compared_field_by_field():
    config = {"steps": 3, "task": {"model": {"width": 8}}, "betas": [0.9, "x" * 50]}
    facts = flat(config, "config:")
    assert facts["config: steps"] == "3"
    assert facts["config: task.model.width"] == "8"
    assert facts["config: betas.0"] == "0.9"
    assert len(facts["config: betas.1"]) == 12


def test_the_few_that_differ_are_named_not_the_many():
    same = {"code: jaxformers": "abc", "config: steps": "3"}
    differing = {**same, "config: steps": "4"}
    assert disagreements({0: same, 1: same}, str) == []
    assert disagreements({0: differing, 1: same, 2: same}, "host {}".format) == [
        "config: steps is 4 on host 0, 3 on the others"
    ]
    # Of two that differ host 0 is believed; a field that one lacks is a difference too.
    assert disagreements({0: same, 1: {"config: steps": "3"}}, "host {}".format) == [
        "code: jaxformers is none on host 1, abc on the others"
    ]


def test_the_hash_of_files_tells_contents_and_places_apart(tmp_path):
    (tmp_path / "a.py").write_text("1")
    first = files_hash(tmp_path.rglob("*.py"), tmp_path)
    assert files_hash(tmp_path.rglob("*.py"), tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    assert files_hash(tmp_path.rglob("*.py"), tmp_path) != first
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert files_hash(tmp_path.rglob("*.py"), tmp_path) != first


def test_code_is_this_library_and_the_versions_of_others():
    facts = code_facts()
    assert len(facts["code: jaxformers"]) == 12
    assert facts["code: jax"].startswith("0.")
