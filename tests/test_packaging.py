"""The wheel, its metadata, and what is installed with it."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

import jaxformers
from jaxformers.cli import command, verbs
from jaxformers.cli.verb_table import VERBS
from jaxformers.errors import DISTRIBUTION, install_extra

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT_FILES = ("*.py", "*.md", "*.sh", "*.toml", "*.cff", "Makefile", "Dockerfile")


def test_the_distribution_has_a_name_of_its_own_and_the_packages_version():
    assert PROJECT["name"] == DISTRIBUTION != "jaxformers"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == jaxformers.__version__
    assert citation["license"] == PROJECT["license"]
    assert f"0.{jaxformers.__version__.split('.')[1]}." in (ROOT / "CHANGELOG.md").read_text()


def test_metadata_says_who_what_and_for_which_python():
    assert {"authors", "classifiers", "keywords", "license", "readme"} <= set(PROJECT)
    pythons = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert pythons == ["3.11", "3.12", "3.13"]


def test_nobody_is_told_to_install_the_strangers_package():
    files = [path for pattern in TEXT_FILES for path in ROOT.rglob(pattern)]
    tracked = [p for p in files if not {".venv", "build", "runs"} & set(p.relative_to(ROOT).parts)]
    advice = re.compile(r"pip3? install[^\n`]*?[ '\"]jaxformers\b(?!/)")
    assert not [path for path in tracked if advice.search(path.read_text())]
    assert install_extra("tpu") == "pip install 'landmark-transformers[tpu]'"


def test_every_extra_is_documented():
    page = (ROOT / "docs" / "install.md").read_text()
    assert not [name for name in PROJECT["optional-dependencies"] if f"`{name}`" not in page]


def test_demo_trains_the_familys_experiment_file(monkeypatch, capfd):
    files = []
    monkeypatch.setattr(verbs, "train", lambda args, fields: files.append((args.file, fields)))
    assert command.main(["demo"]) == 0
    assert command.main(["demo", "--family", "vit", "--steps", "3"]) == 0
    assert files == [
        (str(ROOT / "experiments/translation/demo.py"), []),
        (str(ROOT / "experiments/vit/demo.py"), ["--steps", "3"]),
    ]
    assert command.main(["demo", "--family", "vti"]) == 2
    assert "no demonstration 'vti'; did you mean vit?" in capfd.readouterr().err


def test_demo_names_every_family_that_has_one():
    families = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/demo.py"))
    (specification,) = [spec for option, spec in VERBS["demo"].options if option == "--family"]
    assert all(family in specification["help"] for family in families)


# ---------------------------------------------------------------- completion


def completions(script: str, words: list[str]) -> list[str]:
    """What bash offers for the last of these words."""
    code = (
        f"{script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _jaxformers\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True).stdout.split()


def test_bash_completes_verbs_and_their_options(capfd):
    assert command.main(["completion", "bash"]) == 0
    script = capfd.readouterr().out
    assert completions(script, ["jaxformers", "tr"]) == ["train", "translate"]
    assert completions(script, ["jaxformers", "help", "de"]) == ["demo", "describe"]
    assert "--rehearse" in completions(script, ["jaxformers", "train", "a.py", "--re"])
    assert completions(script, ["jaxformers", "explain", "--met"]) == ["--method"]
    assert completions(script, ["jaxformers", "completion", "f"]) == ["fish"]
    assert completions(script, ["jaxformers", "train", "exp"]) == []  # files, by readline


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_scripts_hold_every_verb_and_option_and_parse(capfd, tmp_path, shell):
    assert command.main(["completion", shell]) == 0
    script = capfd.readouterr().out
    for verb, row in VERBS.items():
        assert verb in script
        assert all(option.removeprefix("--") in script for option, _ in row.options)
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        assert subprocess.run([shell, "-n", path]).returncode == 0


def test_an_unsupported_shell_is_one_line(capfd):
    assert command.main(["completion", "bsh"]) == 2
    assert "no completion for the shell 'bsh'; did you mean bash?" in capfd.readouterr().err


# ---------------------------------------------------------------- the wheel


@pytest.mark.slow
def test_a_wheel_runs_the_demo_outside_the_checkout(tmp_path):
    sources = tmp_path / "sources"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, sources, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, sources], check=True)
    (wheel,) = tmp_path.glob("landmark_transformers-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    experiments = {str(p.relative_to(ROOT)) for p in ROOT.glob("experiments/**/*.py")}
    assert {f"jaxformers/{name}" for name in experiments} <= names
    assert not [name for name in names if name.startswith(("tests", "experiments", "docs"))]

    venv.create(tmp_path / "env", with_pip=True)
    (site,) = tmp_path.glob("env/lib/python*/site-packages")
    (site / "dependencies.pth").write_text(str(Path(yaml.__file__).parents[1]))
    bin_folder = tmp_path / "env" / "bin"
    subprocess.run([bin_folder / "pip", "-q", "install", "--no-deps", wheel], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    ended = subprocess.run(
        [bin_folder / "jaxformers", "demo", "--rehearse", "--folder", "runs/demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs/demo/report.md").exists()
