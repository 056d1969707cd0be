"""What the page's functions give: as the library's own, and one line for a person's mistake."""

import numpy as np
import page_models
import pytest
from matplotlib.figure import Figure

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import DataError
from jaxformers.serve import answers, page, text_image_answers

MARKUP = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return page_models.write_models(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def picture(models):
    return f"{models['pictures']}/150.png"


def test_a_translation_comes_with_its_attention(models):
    translation, figure = answers.translate(models["translation"], "Click the button.")
    assert [translation] == jf.translate(models["translation"], "Click the button.")
    assert isinstance(figure, Figure)
    weights = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)  # each row attends to the source
    with pytest.raises(DataError, match="40 positions"):
        answers.translate(models["translation"], "button " * 100)


def test_masks_are_filled(models):
    rows = answers.fill_masks(models["masks"], "a [MASK] face [MASK]", 3)
    expected = jf.fill_mask(models["masks"], "a [MASK] face [MASK]", top=3)[0]
    assert [row[:2] for row in rows] == [
        [str(number), word] for number, words in enumerate(expected, 1) for word, _ in words
    ]
    with pytest.raises(DataError, match="to fill"):
        answers.fill_masks(models["masks"], "a face", 3)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("second", ["", "sad face"])
def test_classes_of_a_text_come_with_the_relevance_of_its_tokens(models, second):
    classes, figure = answers.classify(models["sentiment"], "grinning face", second)
    text = ("grinning face", second) if second else "grinning face"
    ((label, score),) = jf.classify(models["sentiment"], [text])
    assert max(classes, key=classes.get) == label
    assert classes[label] == pytest.approx(score, abs=1e-5)
    drawn = " ".join(text.get_text() for text in figure.texts)
    assert "grinning" in drawn.replace(" ##", "") and "[SEP]" in drawn


def test_answers_and_entities_are_marked_where_they_stand(models):
    context = f"red heart {MARKUP} " * 3
    answer, spans = answers.answer(models["answers"], "what?", context)
    assert "".join(span.text for span in spans) == context
    assert answer == "" or answer in [span.text for span in spans if span.mark]
    context = f"red heart {MARKUP}"
    spans = answers.tag(models["tags"], context)
    assert "".join(span.text for span in spans) == context
    entities = jf.tag(models["tags"], context)[0]
    assert [span.mark for span in spans if span.mark] == [entity.label for entity in entities]


@pytest.mark.slow
def test_pictures_are_classified_and_explained(models, picture):
    classes = answers.classify_picture(models["vit"], picture, 2)
    assert list(classes.items()) == jf.classify_images(models["vit"], picture, top=2)[0]
    assert isinstance(answers.explain_picture(models["vit"], picture, "rollout", 1), Figure)
    classes = answers.zero_shot(models["clip"], picture, f"cat\n\ndog\n{MARKUP}\n", "a {}")
    names = ["cat", "dog", MARKUP]
    assert list(classes.items()) == jf.zero_shot(models["clip"], picture, names, template="a {}")[0]
    assert isinstance(answers.explain_match(models["clip"], picture, "a cat"), Figure)


def test_a_text_is_never_taken_for_the_path_of_a_file(models, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXFORMERS_CACHE", str(tmp_path))
    by_text = answers.find_pictures(models["clip"], picture, models["pictures"])
    assert picture[-20:] in "".join(text.get_text() for text in by_text.axes[0].texts).replace(
        "\n", ""
    )
    assert sum(bool(axis.images) for axis in by_text.axes) == answers.HITS


def test_sentences_are_compared(models):
    figure = answers.similarities(models["encoder"], f"red heart\n\nblue heart\n{MARKUP}")
    cosines = np.asarray(figure.axes[0].images[0].get_array())
    assert cosines.shape == (3, 3)
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)


@pytest.mark.slow
def test_unified_io_is_asked_and_explained(models, picture):
    source = models["unified_io"]
    text, figure = text_image_answers.ask(source, "What is in\nthe image ?", picture, "text", 0)
    answer = jf.ask(source, "What is in the image ?", picture)
    assert text.splitlines()[0] == (answer.text or f"not understood: {answer.problems[0]}")
    assert len(figure.axes[0].images) == 1
    assert text_image_answers.ask(source, "What ?", None, "text", 0)[1] is None
    answer, figure = text_image_answers.explain(source, "What ?", None, "a bus")
    assert answer == "a bus" and figure.axes[0].get_title("left") == "'a bus'"


@pytest.mark.slow
@pytest.mark.parametrize("task", text_image_answers.LOOKS)
def test_unified_io_looks_at_a_picture(models, picture, task):
    arguments = (models["unified_io"], picture, task, "red bus", "2, 3 12 20")
    text, figure = text_image_answers.look(*arguments)
    assert isinstance(text, str) and figure.axes[0].images
    in_pictures = task in ("depth", "surface normals") or "paint" in task or "masks" in task
    assert len(figure.axes) == 1 + in_pictures


@pytest.mark.slow
def test_unified_io_paints(models):
    text, figure = text_image_answers.paint(models["unified_io"], f"a red bus {MARKUP}", 3)
    assert text == "" and len(figure.axes[0].images) == 1
    _, second = text_image_answers.ask(models["unified_io"], "bus", None, "image", 4)
    pixels = [f.axes[0].images[0].get_array() for f in (figure, second)]
    assert (pixels[0] != pixels[1]).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: text_image_answers.ask(m["unified_io"], " ", None, "text", 0), "is empty"),
        (
            lambda m: text_image_answers.ask(m["unified_io"], "word " * 10_000, None, "text", 0),
            "at most 20,000",
        ),
        (
            lambda m: text_image_answers.ask(m["unified_io"], "what " * 900, None, "text", 0),
            "positions: shorten it",
        ),
        (lambda m: look(m, "depth", "", picture=""), "no picture: upload one"),
        (lambda m: look(m, "depth", "", picture=m["vit"]), "no regular file"),
        (lambda m: look(m, "boxes of what is named", " "), "a field is empty"),
        (lambda m: look(m, "joints of the person in the box", "", "1 2 3"), "four numbers"),
        (lambda m: look(m, "joints of the person in the box", "", "a b c d"), "four numbers"),
        (lambda m: look(m, "joints of the person in the box", "", "9 9 1 1"), "is empty: x1 y1"),
        (lambda m: look(m, "joints of the person in the box", "", "nan 1 2 3"), "four finite"),
        (lambda m: look(m, "joints of the person in the box", "", "0 0 inf 1"), "four finite"),
        (
            lambda m: text_image_answers.explain(m["unified_io"], "What ?", None, "bus " * 300),
            "tokens; the model has",
        ),
    ],
    ids=range(12),
)
def test_what_unified_io_cannot_answer_is_one_line(models, call, message):
    with pytest.raises(DataError, match=message) as caught:
        call(models)
    assert "\n" not in str(caught.value)


def look(models, task, name, box="", picture=None):
    upload = f"{models['pictures']}/150.png" if picture is None else picture
    return text_image_answers.look(models["unified_io"], upload, task, name, box)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: answers.translate(m["translation"], " \n"), "a field is empty"),
        (lambda m: answers.classify(m["sentiment"], "word " * 10_000, ""), "at most 20,000"),
        (lambda m: answers.similarities(m["encoder"], "a\n" * 41), "one sentence a line"),
        (lambda m: answers.classify_picture(m["vit"], None, 5), "no picture"),
        (lambda m: answers.classify_picture(m["vit"], m["vit"], 5), "no regular file"),
        (lambda m: answers.zero_shot(m["clip"], "", "cat", "{}"), "no picture"),
    ],
    ids=["empty", "long", "many lines", "no picture", "no file", "no upload"],
)
def test_a_persons_mistake_is_one_line(models, call, message):
    with pytest.raises(DataError, match=message) as caught:
        call(models)
    assert "\n" not in str(caught.value)


def test_an_upload_is_read_with_suspicion(models, picture, tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(answers.MOST_BYTES + 1)
    with pytest.raises(DataError, match="larger than 20 MiB"):
        answers.classify_picture(models["vit"], str(large), 5)
    link = tmp_path / "link.png"
    link.symlink_to(picture)
    with pytest.raises(DataError, match="no regular file"):
        answers.classify_picture(models["vit"], str(link), 5)
    text = tmp_path / "text.png"
    text.write_text(MARKUP)
    with pytest.raises(DataError, match="not a picture"):
        answers.classify_picture(models["vit"], str(text), 5)
    with pytest.raises(DataError, match="a class comes twice"):
        answers.zero_shot(models["clip"], picture, "cat\ncat", "{}")


def test_the_command_names_the_extra_and_wrong_ports(models, monkeypatch, capsys):
    monkeypatch.setattr(page, "gr", None)
    assert main(["serve", models["vit"]]) == 2
    assert "install the extra `serve`" in capsys.readouterr().err
    assert main(["serve", models["vit"], "--port", "70000"]) == 2
    assert "--port: 70000 is not between 1 and 65535" in capsys.readouterr().err
