"""`jf.explain` of a picture and a text: the rule of the CLIP notebook of Chefer et al. 2021."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import clip_cases as cases
import clip_use as use
from folders import write

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.tasks import Processor
from jaxformers.text import CLIPTokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return use.folder(tmp_path_factory.mktemp("match") / "clip")


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("layer", ["first", "last"])
def test_relevance_equals_the_notebooks_rule_in_pytorch(clip, layer):
    golden = np.load(use.RELEVANCE)
    options = dict(start_layer=0, text_start_layer=0) if layer == "first" else {}
    for number, picture in enumerate(use.pictures()):
        match = jf.explain(clip, picture, text=use.EXPLAINED, **options)
        for index in range(len(use.EXPLAINED)):
            key = f"{number}_{index}"
            assert_allclose(match.cosines[index], golden[f"cosine_{key}"], atol=1e-5)
            image, text = (golden[f"{kind}_{key}_{layer}"] for kind in ("image", "text"))
            assert image.max() > 1e-3 and text.max() > 1e-3
            assert_allclose(match.relevance[index], image, rtol=1e-3, atol=1e-5)
            assert_allclose(match.token_relevance[index], text, rtol=1e-3, atol=1e-5)


def test_tokens_of_a_word_are_one_word(clip):
    picture = use.pictures()[0]
    match = jf.explain(clip, picture, text="The unbelievable primroses, don't  CAFE\u0301")
    assert match.words == (("The", "unbelievable", "primroses,", "don't", "CAFE\u0301"),)
    assert match.tokens[0][:2] == ("the", "unbelievable") and len(match.tokens[0]) > 6
    assert_allclose(match.word_relevance[0].sum(), match.token_relevance[0].sum(), rtol=1e-5)
    assert match.word_shares()[0].sum() == pytest.approx(1)
    # Broken Unicode across a blank is mended in its text alone: the tokens stand for themselves.
    match = jf.explain(clip, picture, text="voil\u00c3\u00a0 un chat")
    assert match.words == match.tokens
    assert "".join(match.tokens[0]) == "voil\u00e0unchat"


def test_a_text_without_words_has_no_shares(clip):
    match = jf.explain(clip, use.pictures()[0], text="")
    assert match.words == ((),) and match.word_shares()[0].shape == (0,)
    assert match.relevance.shape == (1, 9) and len(match.figure().axes) == 3


def test_a_model_in_memory_explains_as_its_folder_does(clip):
    source = (*jf.from_pretrained(clip), Processor(CLIPTokenizer(), jf.load_images(clip)))
    picture = use.pictures()[1]
    ours, theirs = (jf.explain(s, picture, text="a dog") for s in (source, clip))
    np.testing.assert_array_equal(ours.relevance, theirs.relevance)
    assert ours.heat.shape == (1, 21, 21)


def test_the_heat_map_is_zero_where_no_patch_lies(clip):
    model, variables = jf.from_pretrained(clip)
    image = replace(model.config.image, image_size=24)
    larger = jf.CLIP(replace(model.config, image=image), model.execution)
    preprocessing = replace(jf.load_images(clip), size=24)
    source = (larger, variables, Processor(CLIPTokenizer(), preprocessing))
    match = jf.explain(source, use.pictures()[1], text="a dog")
    assert match.heat.shape == (1, 24, 24) and match.relevance.shape == (1, 9)
    assert not match.heat[:, 21:].any() and not match.heat[:, :, 21:].any()
    assert_allclose(match.heat[:, 3:21:7, 3:21:7].reshape(1, 9), match.relevance, rtol=1e-5)


def test_a_uniform_picture_gives_no_evidence(clip):
    match = jf.explain(clip, np.full((30, 30, 3), 90, np.uint8), text=use.EXPLAINED)
    assert match.uniform
    titles = [axis.get_title() for axis in match.figure().axes]
    assert sum("no evidence" in title for title in titles) == 3


def test_the_verb_prints_the_words_and_draws(clip, tmp_path, capsys):
    Image.fromarray(use.pictures()[0]).save(tmp_path / "x.png")
    words = ["explain", str(clip), "--image", str(tmp_path / "x.png")]
    output = str(tmp_path / "y.png")
    texts = ["a dog", "two cats", "x"]
    options = [word for text in texts for word in ("--text", text)]
    assert main([*words, *options, "--output", output]) == 0
    first, second, _, wrote = capsys.readouterr().out.splitlines()
    match = jf.explain(clip, use.pictures()[0], text=texts)
    share = match.word_shares()[0]
    assert first == f"a dog\t{match.cosines[0]:.4f}\ta {share[0]:.4f}\tdog {share[1]:.4f}"
    assert second.startswith("two cats\t") and wrote == f"wrote {output}"
    with Image.open(output) as image:
        assert image.size[0] > image.size[1] > 400
    assert main([*words, "--text", "a", "--method", "rollout"]) == 2
    assert main(words) == 2
    assert main([*words, "--text", use.LONG]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def refused(kind, *args, **options) -> str:
    with pytest.raises(kind) as raised:
        jf.explain(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_the_rule_does_not_cover_is_refused_in_one_line(clip, tmp_path):
    picture = use.pictures()[0]
    assert "no text to explain" in refused(DataError, clip, picture, text=[])
    assert "start_layer is 9" in refused(ConfigError, clip, picture, text="a", start_layer=9)
    assert "start_layer is -1" in refused(ConfigError, clip, picture, text="a", text_start_layer=-1)
    assert "explains no text" in refused(ConfigError, clip, picture, "attribution", text="a")
    assert "or a CLIP and a text" in refused(WeightsError, clip, picture)
    folder = write(
        tmp_path / "siglip", cases.CASES["siglip"], cases.weights(cases.shapes("siglip"), 7)
    )
    model, variables = jf.from_pretrained(folder)
    with pytest.raises(WeightsError, match="SigLIP's attention"):
        from jaxformers.interpret import explain_match

        explain_match(model, variables, CLIPTokenizer(), jf.load_images(clip), picture, ["a"])
