"""What the README and the pages in docs/ say works."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PATH_PATTERN = r"(?<![\w/])((?:jaxformers|experiments|tests|benchmarks|tpu_setup|docs)/[\w/.]*\w)"


def code_blocks(text, language=""):
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M)
    return [code for fence, code in fences if fence == language]


def test_the_first_notebook_cell_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, *_ = code_blocks(PAGES["README.md"], "python")
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["logits"].shape == (2, 3, 1000)
    assert names["states"].shape == (2, 4, 64)
    assert names["seen"]["probs"]["encoder"]["blocks"]["self_attention"]["probs"].shape[0] == 2
    assert (tmp_path / "my-transformer" / "model.safetensors").exists()


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile_and_name_what_exists(page):
    import jaxformers as jf

    for code in code_blocks(PAGES[page], "python"):
        compile(code, page, "exec")
        for name in re.findall(r"\bjf\.(\w+)", code):
            assert hasattr(jf, name), name


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_that_a_page_names_exist(page):
    text = PAGES[page]
    links = re.findall(r"\]\(([^)#:\s]+)\)", text)
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    missing += [path for path in re.findall(PATH_PATTERN, text) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_shows_are_verbs(page):
    from jaxformers.cli.command import VERBS

    pattern = r"^(?:.*\| \.venv/bin/)?jaxformers ([\w-]+)"
    verbs = {verb for code in code_blocks(PAGES[page]) for verb in re.findall(pattern, code, re.M)}
    assert verbs <= set(VERBS)
    assert len(verbs) >= 5 or page != "README.md"
