"""The page: a tab for each model, and in it a tab for each thing that the model can do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, get_args

from jaxformers.api import sources
from jaxformers.errors import ConfigError, UserError, printable
from jaxformers.interpret.explain import Method
from jaxformers.models import CLIPImageConfig
from jaxformers.pretrained import registry
from jaxformers.serve import answers, text_image_answers
from jaxformers.tasks.image_text.zero_shot import TEMPLATE

try:
    import gradio as gr
except ModuleNotFoundError:  # the extra is not installed; `build_page` says so
    gr = None

LOOPBACK = "127.0.0.1"
PORT = 7860
PICTURES = ["image"]
# The reader's own fonts: Gradio's themes would load theirs from the network.
FONTS = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def serve(
    models: Sequence[str], pictures: str | None = None, host: str = LOOPBACK, port: int = PORT
) -> None:
    """Opens the page and serves it until it is interrupted.

    Args:
        models: folders or names, as for `from_pretrained`; each is a tab.
        pictures: folder of pictures that a CLIP finds by words.
        host: address to listen on; the default is reached from this machine alone.
        port: of the address.

    Raises:
        ConfigError: a model that nothing on the page can use, no such folder, or a port in use.
        WeightsError: a model that cannot be read.
    """
    page = build_page(models, pictures)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            max_file_size=answers.MOST_BYTES,
            theme=gr.themes.Default(**FONTS),
            footer_links=[],
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise ConfigError(f"--port {port}: {error}; choose another") from None
    print(f"Serving on http://{host}:{port} ; Ctrl-C ends it", flush=True)
    page.block_thread()


def build_page(models: Sequence[str], pictures: str | None = None) -> gr.Blocks:
    """The page, not yet served; arguments and errors are those of `serve`."""
    if gr is None:
        raise ConfigError("the page needs Gradio: install the extra `serve`")
    if pictures is not None and not os.path.isdir(pictures):
        raise ConfigError(f"--pictures: {pictures} is no folder")
    uses = {source: _uses_of(source, pictures) for source in models}
    with gr.Blocks(title="jaxformers", analytics_enabled=False) as page, gr.Tabs():
        for source, tabs in uses.items():
            with gr.Tab(os.path.basename(source.rstrip("/")) or source), gr.Tabs():
                for title, build in tabs.items():
                    with gr.Tab(title):
                        build(source)
    return page


def _uses_of(source: str, pictures: str | None) -> dict[str, Callable[[str], None]]:
    """The tabs of a model by their titles."""
    model, _ = sources.model_of(source)
    config = model.config

    def serves(use: str) -> bool:
        return type(model) in registry.modules_for(use)

    tabs: dict[str, Callable[[str], None]] = {}
    if serves("translate"):
        tabs["Translate"] = _translation
    if serves("fill_mask") and config.masked_words:
        tabs["Fill masks"] = _masks
    if serves("classify"):
        tabs["Classify a text"] = _text_classes
    if serves("answer"):
        tabs["Answer a question"] = _answers
    if serves("tag"):
        tabs["Tag words"] = _tags
    if serves("classify_images") and config.classes:
        tabs["Classify a picture"] = _picture_classes
    if serves("explain") and config.classes:
        tabs["Heat maps"] = _heat_maps
    if serves("zero_shot"):
        tabs["Classes by name"] = _zero_shot
        if isinstance(config.image, CLIPImageConfig) and config.image.pooling == "class":
            tabs["Match"] = _match
    if serves("search") and pictures is not None:
        tabs["Find pictures"] = lambda source: _search(source, pictures)
    if serves("ask"):
        tabs["Ask"] = _asked
        tabs["Look at a picture"] = _looks
        tabs["Paint"] = _paintings
        tabs["Explain an answer"] = _explained
    if serves("embed"):
        tabs["Compare sentences"] = _similarities
    if not tabs:
        raise ConfigError(f"{source} holds a {type(model).__name__}, which this page cannot use")
    return tabs


def _translation(source: str) -> None:
    sentence = gr.Textbox(label="Sentence", lines=3)
    run = _button("Translate", source)
    translation = gr.Textbox(label="Translation", lines=3, interactive=False)
    attention = gr.Plot(show_label=False)
    run(answers.translate, [sentence], [translation, attention])


def _masks(source: str) -> None:
    _, _, tokenizer = sources.text_model("fill_mask", source)
    mask = getattr(tokenizer, "mask_token", "[MASK]")
    text = gr.Textbox(label=f"Text with {mask} where a word is missing", lines=3)
    top = gr.Slider(1, 20, value=5, step=1, label="Words for each mask")
    run = _button("Fill", source)
    words = gr.Dataframe(headers=["mask", "word", "probability"], interactive=False)
    run(answers.fill_masks, [text, top], [words])


def _text_classes(source: str) -> None:
    first = gr.Textbox(label="Text", lines=3)
    second = gr.Textbox(label="Second text, of a pair", lines=2)
    run = _button("Classify", source)
    classes = gr.Label(label="Classes")
    relevance = gr.Plot(show_label=False)
    run(answers.classify, [first, second], [classes, relevance])


def _answers(source: str) -> None:
    question = gr.Textbox(label="Question")
    context = gr.Textbox(label="Context", lines=8)
    run = _button("Answer", source)
    answer = gr.Textbox(label="Answer", interactive=False)
    marked = gr.HighlightedText(label="In its context")
    run(answers.answer, [question, context], [answer, marked])


def _tags(source: str) -> None:
    text = gr.Textbox(label="Text", lines=4)
    run = _button("Tag", source)
    marked = gr.HighlightedText(label="Entities")
    run(answers.tag, [text], [marked])


def _picture_classes(source: str) -> None:
    upload, top = _upload(), gr.Slider(1, 20, value=5, step=1, label="Classes")
    run = _button("Classify", source)
    classes = gr.Label(label="Classes")
    run(answers.classify_picture, [upload, top], [classes])


def _heat_maps(source: str) -> None:
    upload = _upload()
    method = gr.Dropdown(list(get_args(Method)), value="attribution", label="Method")
    top = gr.Slider(1, 5, value=3, step=1, label="Classes")
    run = _button("Explain", source)
    heat = gr.Plot(show_label=False)
    run(answers.explain_picture, [upload, method, top], [heat])


def _zero_shot(source: str) -> None:
    upload = _upload()
    names = gr.Textbox(label="Names of the classes, one a line", lines=4)
    template = gr.Textbox(label="Prompt, with {} for the name", value=TEMPLATE)
    run = _button("Classify", source)
    classes = gr.Label(label="Classes")
    run(answers.zero_shot, [upload, names, template], [classes])


def _match(source: str) -> None:
    upload, text = _upload(), gr.Textbox(label="Text")
    run = _button("Explain", source)
    match = gr.Plot(show_label=False)
    run(answers.explain_match, [upload, text], [match])


def _search(source: str, pictures: str) -> None:
    query = gr.Textbox(label="What to look for")
    run = _button("Find", source)
    hits = gr.Plot(show_label=False)
    run(lambda source, text: answers.find_pictures(source, text, pictures), [query], [hits])


def _similarities(source: str) -> None:
    sentences = gr.Textbox(label="Sentences, one a line", lines=6)
    run = _button("Compare", source)
    cosines = gr.Plot(show_label=False)
    run(answers.similarities, [sentences], [cosines])


def _asked(source: str) -> None:
    prompt, upload = gr.Textbox(label="Prompt", lines=2), _upload()
    output = gr.Radio([("text", "text"), ("picture", "image")], value="text", label="Answer in")
    seed = gr.Slider(0, 100, value=0, step=1, label="Seed of a picture")
    run = _button("Ask", source)
    run(text_image_answers.ask, [prompt, upload, output, seed], _answer_fields())


def _looks(source: str) -> None:
    upload, tasks = _upload(), list(text_image_answers.LOOKS)
    task = gr.Dropdown(tasks, value=tasks[0], label="Task")
    name = gr.Textbox(label="Name or question")
    box = gr.Textbox(label="Corners of the box", placeholder="x1 y1 x2 y2 in pixels")
    run = _button("Look", source)
    run(text_image_answers.look, [upload, task, name, box], _answer_fields())


def _paintings(source: str) -> None:
    text = gr.Textbox(label="What the picture shows", lines=2)
    seed = gr.Slider(0, 100, value=0, step=1, label="Seed")
    run = _button("Paint", source)
    run(text_image_answers.paint, [text, seed], _answer_fields())


def _explained(source: str) -> None:
    prompt, upload = gr.Textbox(label="Prompt", lines=2), _upload()
    answer = gr.Textbox(label="Answer to explain", placeholder="empty: what the model answers")
    run = _button("Explain", source)
    run(text_image_answers.explain, [prompt, upload, answer], _answer_fields())


def _answer_fields() -> list[Any]:
    """Fields for a text and a figure."""
    return [gr.Textbox(label="Answer", interactive=False), gr.Plot(show_label=False)]


def _upload() -> gr.File:
    """A field for a picture: the file as it is, which the library decodes, not Gradio."""
    return gr.File(label="Picture", file_types=PICTURES, type="filepath")


def _button(label: str, source: str) -> Callable[..., None]:
    """Draws a button, and under it the line of a user's mistake.

    Returns `run(function, inputs, outputs)`, which has the button call a function of the model.
    """
    button = gr.Button(label, variant="primary")
    message = gr.Textbox(label="Error", visible=False, interactive=False)

    def run(function: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        def call(*values: Any) -> list[Any]:
            try:
                results = function(source, *values)
            except UserError as error:
                line = printable(" ".join(str(error).split()))
                return [gr.update(value=line, visible=True), *[None] * len(outputs)]
            return [gr.update(visible=False), *(results if len(outputs) > 1 else [results])]

        # One call at a time for the whole page: a model's arrays fill the machine already.
        button.click(
            call,
            inputs,
            [message, *outputs],
            concurrency_limit=1,
            concurrency_id="models",
            api_visibility="private",
        )

    return run
