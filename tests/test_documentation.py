"""What the README and the pages in docs/ say works."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import jaxformers as jf
import jaxformers.api
from jaxformers.cli.verb_table import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
}
PATH_PATTERN = r"(?<![\w/])((?:jaxformers|experiments|tests|benchmarks|tpu_setup|docs)/[\w/.]*\w)"


HOSTS = {"arxiv.org", "jupytext.readthedocs.io", "keepachangelog.com", "semver.org"}


def code_blocks(text, language=""):
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.S | re.M)
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


def prose(text):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def anchors(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#{1,3} (.+)$", prose(text), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_anchors_that_a_page_links_to_are_headings(page):
    for link, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", prose(PAGES[page])):
        target = (ROOT / page).parent.joinpath(link) if link else ROOT / page
        assert anchor in anchors(target.read_text()), f"{link}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "SECURITY.md"])
def test_links_to_other_sites_are_well_formed_and_of_known_hosts(page):
    """`make links` asks the sites themselves."""
    text = PAGES.get(page) or (ROOT / page).read_text()
    for link in re.findall(r"(?:\]\(|<)(\w+://[^)>]*)[)>]", prose(text)):
        address = urlsplit(link)
        assert (address.scheme, address.hostname) in {("https", host) for host in HOSTS}, link
        assert re.fullmatch(r"[\w./#-]*", address.path + address.fragment), link
        if address.hostname == "arxiv.org":
            assert re.fullmatch(r"/abs/\d{4}\.\d{5}", address.path), link


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_a_page_names_exist_and_are_slow_where_it_says_so(page):
    for path, name, slow in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`(\s+\(slow\))?", PAGES[page]):
        tree = ast.parse((ROOT / path).read_text())
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
        assert functions, f"{path}::{name}"
        marks = {ast.unparse(decorator) for decorator in functions[0].decorator_list}
        assert ("pytest.mark.slow" in marks) == bool(slow), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_a_page_shows_are_verbs(page):
    pattern = r"^(?:.*\| \.venv/bin/)?jaxformers ([\w-]+)"
    verbs = {verb for code in code_blocks(PAGES[page]) for verb in re.findall(pattern, code, re.M)}
    assert verbs <= set(VERBS)
    assert len(verbs) >= 5 or page != "README.md"


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_shows_belong_to_their_verbs(page):
    for code in code_blocks(PAGES[page]):
        for verb, words in re.findall(
            r"\bjaxformers ([\w-]+)([^\n#|]*)", code.replace("\\\n", " ")
        ):
            options = {option for option, _ in VERBS[verb].options} | {"--help"}
            flags = set(re.findall(r"(?<!\S)--[\w.-]+", words))
            assert flags <= options or VERBS[verb].fields, (verb, flags - options)


def calls_of_the_library(code):
    """The calls `jf.name(...)` of a code block: name, number of positional arguments, keywords."""
    for node in ast.walk(ast.parse(code)):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_call and getattr(node.func.value, "id", "") == "jf":
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            keywords = [keyword.arg for keyword in node.keywords]
            if not starred and None not in keywords:
                yield node.func.attr, len(node.args), keywords


@pytest.mark.parametrize("page", PAGES)
def test_calls_that_a_page_shows_fit_the_signatures(page):
    for code in code_blocks(PAGES[page], "python"):
        for name, count, keywords in calls_of_the_library(code):
            signature = inspect.signature(getattr(jf, name))
            signature.bind(*range(count), **dict.fromkeys(keywords))


@pytest.mark.parametrize("page", ["docs/getting_started.md", "docs/nnx.md"])
def test_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    import jax

    monkeypatch.chdir(tmp_path)
    for code in code_blocks(PAGES[page], "python"):
        names = {}
        with jax.numpy_dtype_promotion("standard"):
            exec(compile(code, page, "exec"), names)
    if "losses" in names:
        assert names["losses"][-1] < names["losses"][0]


@pytest.mark.parametrize(
    ("page", "blocks"),
    [
        ("docs/evaluation.md", slice(4, 6)),
        pytest.param("docs/explaining.md", slice(4, 6), marks=pytest.mark.slow),
        pytest.param("docs/papers/unified_io.md", slice(1, 3), marks=pytest.mark.slow),
    ],
)
def test_python_blocks_that_read_no_files_run(page, blocks):
    import jax

    names = {"jf": jf}
    with jax.numpy_dtype_promotion("standard"):
        for code in code_blocks(PAGES[page], "python")[blocks]:
            exec(compile(code, page, "exec"), names)
    if "experiment" in names:
        assert names["experiment"]().name == "questions"


def test_the_readme_is_short_and_shows_a_picture_that_committed_code_draws(monkeypatch):
    assert len(PAGES["README.md"].splitlines()) <= 150
    assert "](docs/picture.svg)" in PAGES["README.md"]
    monkeypatch.syspath_prepend(ROOT / "docs")
    make_picture = importlib.import_module("make_picture")
    words = {text.get_text() for axis in make_picture.draw().axes for text in axis.texts}
    picture = (ROOT / "docs" / "picture.svg").read_text()
    assert all(line in picture for line in words if line.isalnum())
    del sys.modules["make_picture"]


# ---------------------------------------------------------------- the API's pages

ROOMS = [name for name in jf.__all__ if inspect.ismodule(getattr(jf, name))]
CONSTANTS = (str, int, float, tuple, dict, frozenset)


def public_names(room):
    """Functions and classes that a room makes public; constants and aliases are left out."""
    module = getattr(jf, room)
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    values = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("jaxformers")
    }


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_on_its_page_with_a_docstring(room):
    assert f".. automodule:: jaxformers.{room}\n" in PAGES[f"docs/api/{room}.md"]
    assert room in PAGES["docs/api/index.md"].splitlines()
    names = public_names(room)
    assert names
    undocumented = [
        name
        for name, value in names.items()
        if not value.__doc__ or value.__doc__.startswith(f"{name}(")  # as a dataclass's own
    ]
    assert not undocumented


def test_every_method_of_a_public_class_has_a_docstring():
    values = {(room, name): value for room in ROOMS for name, value in public_names(room).items()}
    assert len(values) >= 250
    undocumented = []
    for (room, name), value in values.items():
        fields = getattr(value, "__dataclass_fields__", {})
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            public = not method.startswith("_") and method != "setup" and method not in fields
            # Of an overriding method, getdoc takes the docstring of what it overrides.
            if (
                public
                and inspect.isfunction(function)
                and not inspect.getdoc(getattr(value, method))
            ):
                undocumented.append(f"jf.{room}.{name}.{method}")
    assert not undocumented


def test_every_function_for_notebooks_is_documented_with_its_arguments():
    functions = {n: getattr(jf, n) for n in jf.__all__ if inspect.isfunction(getattr(jf, n))}
    assert len(functions) >= 20
    page = PAGES["docs/api/functions.md"]
    for name, function in functions.items():
        documented = f"jaxformers.{name}" in page
        assert documented or name in {*jf.api.__all__, *jf.decoding.__all__}, name
        assert re.search("Args:|Arguments", inspect.getdoc(function)), name


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-D", "nb_execution_mode=off"]
    result = subprocess.run(
        [sys.executable, *command, "docs", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    layers = (tmp_path / "api" / "layers.html").read_text()
    assert layers.count("jaxformers.layers.") > 20
    assert "None: width / heads." in layers  # and no type before the colon
