"""What the README says works."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_notebook_lines_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, *_ = blocks("python")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["logits"].shape == (2, 3, 1000)
    assert names["states"].shape == (2, 4, 64)
    assert names["seen"]["probs"]["encoder"]["blocks"]["self_attention"]["probs"].shape[0] == 6
    assert (tmp_path / "my-transformer" / "model.safetensors").exists()


def test_every_block_is_python_of_names_that_there_are():
    import jaxformers as jf

    for code in blocks("python"):
        compile(code, "README.md", "exec")
        for name in re.findall(r"\bjf\.(\w+)", code):
            assert hasattr(jf, name), name


@pytest.mark.parametrize(
    "path",
    sorted(
        set(re.findall(r"`?((?:jaxformers|experiments|tests|benchmarks)/[\w/.]+\.\w+)", README))
    ),
)
def test_files_that_it_names_exist(path):
    assert (ROOT / path).exists()


def test_commands_that_it_shows_are_verbs_with_their_options():
    from jaxformers.cli.command import VERBS

    shown = re.findall(r"^(?:.*\| \.venv/bin/)?jaxformers ([\w-]+)", README, flags=re.M)
    assert len(shown) >= 7
    assert set(shown) <= set(VERBS)
