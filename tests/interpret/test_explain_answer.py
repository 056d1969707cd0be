"""`jf.explain` of a text answer of Unified-IO, against the rules of ICCV 2021 in PyTorch."""

from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.interpret import explain_answer
from tests.fixtures import unified_io_cases as cases
from tests.helpers.unified_io import network
from tests.helpers.unified_io import source as tiny_source

GOLDEN = Path(cases.__file__).parent / "unified_io_relevance.npz"
PROMPT, ANSWER = "What is in the image ?", "a red bus"


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("case", sorted(cases.EXPLAINED))
def test_relevance_equals_the_rules_in_pytorch(case):
    golden = np.load(GOLDEN)
    model, variables = network(cases.CASES[case][0])
    inputs = cases.inputs(case)
    inputs.pop("target_codes", None)
    relevance = explain_answer(model, variables, tokens=cases.explained_tokens(case), **inputs)
    for number, arrays in enumerate(zip(*relevance, strict=True)):
        for name, array in zip(("source", "target"), arrays, strict=True):
            expected = golden[f"{case}/{number}/{name}"]
            assert expected.max() > 1e-2
            assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def source():
    return tiny_source()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def explained(source, picture):
    return jf.explain(source, picture, prompt=PROMPT, answer=ANSWER)


def test_an_answer_is_explained_by_words_and_patches(source, picture, explained):
    model, _, processor = source
    tokenizer, grid = processor.tokenizer, model.config.image_rows // model.config.patch_size
    (ids,), (prompt_ids,) = tokenizer.encode([ANSWER]), tokenizer.encode([PROMPT])
    count, words = len(ids), PROMPT.split()
    assert explained.answer == ANSWER and len(explained.tokens) == count
    assert explained.words == tuple(words)
    assert explained.token_relevance.shape == (count, len(prompt_ids))
    assert_allclose(explained.word_relevance.sum(1), explained.token_relevance.sum(1), rtol=1e-4)
    # 12 x 32 pixels: the last of the square's two rows of patches is empty.
    relevance = explained.relevance.reshape(count, grid, grid)
    side = model.config.image_rows
    assert explained.heat.shape == (count, side * 3 // 8, side)
    assert explained.picture.shape == (side * 3 // 8, side, 3)
    assert (relevance[:, -1] == 0).all() and relevance.max() > 0
    # The shares of words and picture are all that there is, but for the prompt's end.
    totals = explained.word_shares().sum(1) + explained.picture_shares()
    assert_allclose(totals, 1, rtol=1e-5)
    assert (np.triu(explained.answer_relevance) == 0).all()
    assert (np.tril(explained.answer_relevance, -1) >= -1e-6).all()
    figure = explained.figure()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[0].startswith("'a red bus'") and len(titles) == 6


@pytest.mark.slow
def test_padding_changes_nothing(source):
    model, variables, processor = source
    (ids,), (prompt_ids,) = map(processor.tokenizer.encode, ([ANSWER], [PROMPT]))
    inputs = dict(target_ids=np.array([[0, *ids[:-1]]]), input_ids=np.array([[*prompt_ids, 1]]))
    alone = jf.explain(source, prompt=PROMPT, answer=ANSWER)
    expected = explain_answer(model, variables, tokens=np.array([ids]), **inputs)
    assert_allclose(alone.token_relevance, expected.source[0, :, :-1], atol=1e-5)
    logits = model.apply(variables, **inputs).text_logits[0]
    expected = np.asarray(jax.nn.softmax(logits))[np.arange(len(ids)), ids]
    assert_allclose(alone.probabilities, expected, rtol=1e-4)


@pytest.mark.slow
def test_a_text_alone_a_picture_alone_and_a_generated_answer_are_explained(source, picture):
    alone = jf.explain(source, prompt=PROMPT, answer=ANSWER)
    assert alone.picture is None and alone.relevance.shape[1] == 0 and not alone.uniform
    assert_allclose(alone.picture_shares(), 0)
    assert len(alone.figure().axes) == 1 + min(len(alone.tokens), 5)
    picture_alone = jf.explain(source, picture, prompt="", answer=ANSWER)
    assert picture_alone.words == () and picture_alone.token_relevance.shape[1] == 0
    assert picture_alone.picture_shares()[0] == pytest.approx(1)
    generated = jf.explain(source, picture, prompt=PROMPT)
    assert generated.answer == jf.ask(source, PROMPT, picture).text
    uniform = jf.explain(source, np.full((8, 8, 3), 90, np.uint8), prompt="", answer="a")
    assert uniform.uniform and "no evidence" in uniform.figure().axes[1].get_title()


def test_a_run_of_unknown_characters_is_shortened_in_the_figure(source, picture):
    word = "\u4e2d" * 20_000
    explained = jf.explain(source, picture, prompt=f"What {word}", answer=ANSWER)
    assert explained.words == ("What", word)
    texts = [text.get_text() for text in explained.figure().axes[-1].texts]
    assert texts == ["What", f"{word[:50]}..."]


@pytest.mark.slow
def test_location_tokens_are_words(source, picture):
    prompt = "What is in <extra_id_105> <extra_id_999> ?"
    explained = jf.explain(source, picture, prompt=prompt, answer="<extra_id_200> bus")
    assert explained.words == tuple(prompt.split())
    assert explained.tokens[0] == "<extra_id_200>"


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    model, variables, processor = source
    path = tmp_path_factory.mktemp("explained") / "unified_io"
    jf.save_pretrained(model, variables, path, tokenizer=processor.tokenizer)
    return str(path)


@pytest.mark.slow
def test_the_verb_prints_the_words_and_draws(folder, explained, picture, tmp_path, capsys):
    Image.fromarray(picture).save(tmp_path / "x.png")
    words = ["explain", folder, "--prompt", PROMPT]
    output = str(tmp_path / "y.png")
    options = ["--image", str(tmp_path / "x.png"), "--answer", ANSWER, "--output", output]
    assert main([*words, *options]) == 0
    first, second, *_, wrote = capsys.readouterr().out.splitlines()
    share, word_shares = explained.picture_shares()[0], explained.word_shares()[0]
    assert first.startswith(f"a red bus\t(picture) {share:.4f}\tWhat {word_shares[0]:.4f}\tis ")
    assert second.startswith(f"{explained.tokens[0]} {explained.probabilities[0]:.4f}\t(picture)")
    assert wrote == f"wrote {output}"
    with Image.open(output) as image:
        assert image.size[0] > 900 and image.size[1] > 900
    assert main([*words, "--method", "rollout"]) == 2
    assert main(["explain", folder, "--image", str(tmp_path / "x.png")]) == 2
    assert main(["explain", folder, "--answer", "a"]) == 2
    assert main([*words, "--text", "a"]) == 2
    assert main([*words, "--answer", " "]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_what_is_not_explained_is_refused_in_one_line(source, picture, folder):
    def refused(kind, *args, **options):
        with pytest.raises(kind) as raised:
            jf.explain(*args, **options)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    prompt = dict(prompt=PROMPT)
    message = refused(ConfigError, source, picture, **prompt, answer=picture)
    assert message == "answer is a ndarray: texts are explained, pictures as answers are not"
    assert "give the prompt" in refused(ConfigError, source, picture, answer=ANSWER)
    assert "give one of them" in refused(ConfigError, source, picture, **prompt, text="a")
    assert "explains no answer" in refused(ConfigError, source, picture, "attribution", **prompt)
    assert "all layers" in refused(ConfigError, source, picture, **prompt, start_layer=0)
    assert "the given answer is empty" in refused(DataError, source, picture, **prompt, answer="")
    message = refused(DataError, source, picture, **prompt, answer="bus " * 300)
    assert "tokens; the model has" in message
    assert "shorten it" in refused(DataError, source, picture, prompt="what " * 90)
    depth = dict(prompt="What is the depth map of the image ?")
    assert "output" in refused(ConfigError, source, picture, **depth, answer="a")
    assert "picture" in refused(DataError, source, prompt="What does the image describe ?")
    assert "no picture: give one" in refused(DataError, source)
    for name in (source, folder):
        assert "holds a UnifiedIO, whose answers" in refused(WeightsError, name, picture)
