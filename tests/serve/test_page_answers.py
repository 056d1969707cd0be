"""What the page's functions give: as the library's own, and one line for a person's mistake."""

import numpy as np
import page_models
import pytest
from matplotlib.figure import Figure

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import DataError
from jaxformers.serve import answers, page

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
