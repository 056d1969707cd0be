"""The page in a browser, used as a person would: needs Gradio, Playwright and Chromium.

pip install -e '.[serve,test]' playwright
pytest -m slow tests/serve
"""

import os
import shutil
import socket
import subprocess
import sys
import time

import page_models
import pytest

pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return page_models.write_models(tmp_path_factory.mktemp("page"))


def test_a_model_has_a_tab_for_each_of_its_uses(models):
    from jaxformers.serve.page import build_page

    folders = [models[name] for name in ("clip", "masks", "translation", "unified_io", "vit")]
    page = build_page(folders, models["pictures"])
    labels = [block.label for block in page.blocks.values() if type(block).__name__ == "Tab"]
    assert labels == [
        "clip", "Classes by name", "Match", "Find pictures", "Compare sentences",
        "masks", "Fill masks", "Compare sentences",
        "translation", "Translate",
        "unified_io", "Ask", "Look at a picture", "Paint", "Explain an answer",
        "vit", "Classify a picture", "Heat maps",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def address(models):
    """The page, served by the command."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = ("masks", "sentiment", "tags", "translation", "vit", "clip", "unified_io")
    command = [sys.executable, "-m", "jaxformers", "serve", *(models[name] for name in names)]
    command += ["--pictures", models["pictures"], "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert f"http://127.0.0.1:{port}" in process.stdout.readline()
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


class Person:
    """Uses one window of the page."""

    def __init__(self, browser, address):
        self.page = browser.new_page()
        self.dialogs, self.requests = [], []
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def visible(self, locator):
        return locator.locator("visible=true").first

    def open(self, model, tab):
        self.page.get_by_role("tab", name=model, exact=True).click()
        self.visible(self.page.get_by_role("tab", name=tab, exact=True)).click()

    def upload(self, path):
        for field in self.page.locator("input[type=file]").all():
            if field.evaluate("e => !!e.closest('.tabitem')?.offsetParent"):
                field.set_input_files(str(path))

    def fill(self, **fields):
        for label, text in fields.items():
            self.visible(self.page.get_by_label(label)).fill(text)

    def press(self, button):
        self.visible(self.page.get_by_role("button", name=button, exact=True)).click()

    def choose(self, label, option):
        self.visible(self.page.get_by_label(label)).click()
        self.page.get_by_role("option", name=option).click()

    def sees_figure(self, seconds=120):
        """Whether a figure comes to stand on the page."""
        self.visible(self.page.locator("img[src^='data:image']")).wait_for(timeout=1000 * seconds)
        return True

    def sees(self, text, seconds=60):
        """Whether the text comes to stand on the page, in a field or as text."""
        for _ in range(4 * seconds):
            values = self.page.locator("textarea:visible").evaluate_all(
                "fields => fields.map(field => field.value)"
            )
            if any(text in value for value in (*values, self.page.inner_text("body"))):
                return True
            time.sleep(0.25)
        return False


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.mark.slow
def test_people_use_every_kind_of_tab_at_once(browser, address, models):
    first, second = Person(browser, address), Person(browser, address)
    first.open("sentiment", "Classify a text")
    first.fill(Text=f"grinning face {MARKUP}")
    second.open("vit", "Classify a picture")
    second.upload(f"{models['pictures']}/150.png")
    first.press("Classify")
    second.press("Classify")
    assert first.sees("good") and second.sees("<b>bird</b>")
    first.open("translation", "Translate")
    first.fill(Sentence=MARKUP * 20)
    first.press("Translate")
    assert first.sees("the model has 40 positions; shorten or split it")
    second.open("clip", "Classes by name")
    second.upload(f"{models['pictures']}/150.png")
    second.fill(Names=f"cat\n{MARKUP}")
    second.press("Classify")
    assert second.sees("%")
    first.open("unified_io", "Ask")
    first.fill(Prompt=f"What is in the image ? {MARKUP}")
    first.upload(f"{models['pictures']}/150.png")
    first.page.wait_for_timeout(1000)
    second.open("unified_io", "Look at a picture")
    second.upload(f"{models['pictures']}/150.png")
    second.choose("Task", "masks of what is named")
    second.fill(**{"Name or question": MARKUP})
    first.press("Ask")
    second.press("Look")
    assert first.sees_figure() and second.sees_figure()
    first.open("unified_io", "Explain an answer")
    first.fill(Prompt=MARKUP, **{"Answer to explain": MARKUP[:9]})
    first.press("Explain")
    assert first.sees_figure()
    first.fill(Prompt=MARKUP * 30)
    first.press("Explain")
    assert first.sees("positions: shorten it")
    for person in (first, second):
        assert not person.dialogs
        assert all(address in url for url in person.requests if url.startswith("http"))


@pytest.mark.slow
def test_hostile_uploads_are_answered_in_a_line(browser, address, tmp_path):
    from PIL import Image

    bomb, large = tmp_path / "bomb.png", tmp_path / "large.png"
    Image.new("L", (30_000, 30_000)).save(bomb)
    with large.open("wb") as file:
        file.truncate(100 * 2**20)
    for model, tab, button in (
        ("vit", "Classify a picture", "Classify"),
        ("unified_io", "Look at a picture", "Look"),
    ):
        person = Person(browser, address)
        person.open(model, tab)
        person.upload(bomb)
        person.page.wait_for_timeout(3000)
        person.press(button)
        assert person.sees("may be a decompression bomb")
        person = Person(browser, address)
        person.open(model, tab)
        person.upload(large)
        assert person.sees("exceed the maximum allowed size")
    person.open("unified_io", "Ask")
    person.fill(Prompt="word " * 10_000)
    person.press("Ask")
    assert person.sees("at most 20,000")
    person.open("masks", "Fill masks")
    person.fill(Text="word " * 10_000)
    person.press("Fill")
    assert person.sees("at most 20,000")
