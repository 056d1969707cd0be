"""CLIP at work: classes by their names, vectors of pictures and texts, as Hugging Face's."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import clip_cases as cases
import clip_use as use
import siglip_lines
from folders import write

import jaxformers as jf
from jaxformers.cli.command import main
from jaxformers.errors import ConfigError, DataError, UserError, WeightsError
from jaxformers.tasks import Processor
from jaxformers.tasks.image_text.zero_shot import class_probabilities
from jaxformers.text import CLIPTokenizer


@pytest.fixture(scope="module")
def golden():
    return np.load(use.GOLDEN)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return use.folder(tmp_path_factory.mktemp("use") / "clip")


def probabilities(answers):
    """Of each picture, in the order of the distinct entries' names and probabilities."""
    return [sorted(answer) for answer in answers]


def expected(shares):
    return [sorted(zip(use.NAMES, map(float, row), strict=True)) for row in shares]


def assert_same_classes(answers, shares):
    for ours, theirs in zip(probabilities(answers), expected(shares), strict=True):
        assert [name for name, _ in ours] == [name for name, _ in theirs]
        ours, theirs = ([share for _, share in row] for row in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("number", [0, 1])
def test_classes_equal_hugging_faces(clip, golden, number):
    answers = jf.zero_shot(clip, use.pictures(), use.NAMES, template=use.TEMPLATES[number])
    assert_same_classes(answers, golden[f"probabilities_{number}"])
    for answer in answers:
        shares = [share for _, share in answer]
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)


def test_several_templates_are_averaged_as_unit_vectors(clip, golden):
    answers = jf.zero_shot(clip, use.pictures(), use.NAMES, template=use.TEMPLATES)
    assert_same_classes(answers, golden["probabilities"])


def test_one_picture_one_name_and_the_top(clip, tmp_path):
    Image.fromarray(use.pictures()[0]).save(tmp_path / "a.png")
    all_classes = jf.zero_shot(clip, use.pictures()[:1], use.NAMES)
    for picture in (use.pictures()[0], str(tmp_path / "a.png"), tmp_path):
        answers = jf.zero_shot(clip, picture, use.NAMES, top=2)
        assert [name for name, _ in answers[0]] == [name for name, _ in all_classes[0][:2]]
    assert jf.zero_shot(clip, use.pictures()[0], "crane") == [[("crane", 1.0)]]
    assert jf.zero_shot(clip, [], use.NAMES) == []


def test_vectors_equal_hugging_faces(clip, golden):
    np.testing.assert_allclose(jf.embed_images(clip, use.pictures()), golden["images"], atol=2e-5)
    # The long text is cut, its end-of-text token kept.
    np.testing.assert_allclose(jf.embed(clip, use.TEXTS), golden["texts"], atol=2e-5)
    for vectors in (
        jf.embed_images(clip, use.pictures(), normalize=True),
        jf.embed(clip, use.TEXTS, normalize=True),
    ):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert jf.embed(clip, []).shape == jf.embed_images(clip, []).shape == (0, 20)


def test_a_model_in_memory_answers_as_its_folder_does(clip):
    model, variables = jf.from_pretrained(clip)
    tokenizer, preprocessing = CLIPTokenizer(), jf.load_images(clip)
    source = (model, variables, Processor(tokenizer, preprocessing))
    picture = use.pictures()[0]
    assert jf.zero_shot(source, picture, use.NAMES) == jf.zero_shot(clip, picture, use.NAMES)
    vectors = jf.embed_images(clip, picture)
    for third in (source[2], preprocessing):
        np.testing.assert_array_equal(jf.embed_images((*source[:2], third), picture), vectors)
    vectors = jf.embed(clip, "a dog")
    for third in (source[2], tokenizer):
        np.testing.assert_array_equal(jf.embed((*source[:2], third), "a dog"), vectors)


def test_a_folder_without_preprocessing_takes_openais(clip, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(clip, folder)
    (folder / "preprocessor_config.json").unlink()
    vectors = jf.embed_images(folder, use.pictures()[2])
    # Square pictures are cropped alike by both rules.
    np.testing.assert_allclose(vectors, jf.embed_images(clip, use.pictures()[2]), atol=1e-6)


def test_a_saved_folder_keeps_its_tokenizer_and_preprocessing(clip, tmp_path):
    preprocessing = jf.load_images(clip)
    model = jf.from_pretrained(clip)
    jf.save_pretrained(
        *model, tmp_path / "ours", tokenizer=CLIPTokenizer(), preprocessing=preprocessing
    )
    assert jf.load_text(tmp_path / "ours").fingerprint == CLIPTokenizer().fingerprint
    picture = use.pictures()[1]
    ours = jf.zero_shot(tmp_path / "ours", picture, use.NAMES)
    assert ours == jf.zero_shot(clip, picture, use.NAMES)


@pytest.mark.slow
def test_convert_keeps_the_tokenizer_where_there_is_one(clip, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(clip, source)
    CLIPTokenizer().save(source)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert isinstance(jf.load_text(tmp_path / "ours"), CLIPTokenizer)
    marks = ("input_resolution", "context_length", "vocab_size")  # of an archive of OpenAI's
    tensors = cases.weights(cases.shapes("openai_vit"), 3) | dict.fromkeys(marks, np.array(0))
    safetensors.numpy.save_file(tensors, tmp_path / "clip.safetensors")
    assert main(["convert", str(tmp_path / "clip.safetensors"), str(tmp_path / "file")]) == 0
    vectors = jf.embed_images(tmp_path / "clip.safetensors", use.pictures())
    np.testing.assert_allclose(jf.embed_images(tmp_path / "file", use.pictures()), vectors)
    # Of another vocabulary than OpenAI's, an open_clip folder's tokenizer cannot be told.
    model = jf.from_pretrained(tmp_path / "clip.safetensors")
    jf.save_pretrained(*model, tmp_path / "open_clip", format="open_clip")
    assert main(["convert", str(tmp_path / "open_clip"), str(tmp_path / "again")]) == 0


@pytest.mark.parametrize("name", ["clip_text_projection", "clip_vision_projection"])
def test_a_tower_alone_embeds(name, clip, tmp_path):
    config = use.CONFIG["text_config"] if "text" in name else use.CONFIG["vision_config"]
    tower, projection = ("text_", "text_") if "text" in name else ("vision_", "visual_")
    tensors = {
        key: value
        for key, value in use.tensors().items()
        if key.startswith((f"{tower}model.", f"{projection}projection"))
    }
    architecture = {"architectures": cases.CASES[name]["architectures"]}
    folder = write(tmp_path / name, config | architecture, tensors)
    call, inputs = (jf.embed, "a dog") if "text" in name else (jf.embed_images, use.pictures()[2])
    np.testing.assert_allclose(call(folder, inputs), call(clip, inputs), atol=1e-6)
    kind = "CLIPTextTower" if "text" in name else "CLIPImageTower"
    assert f"holds a {kind}" in refused(WeightsError, jf.zero_shot, folder, [], ["a"])


def test_siglips_probabilities_are_sigmoids_with_the_bias(tmp_path):
    config = cases.CASES["siglip"]
    folder = write(tmp_path / "siglip", config, cases.weights(cases.shapes("siglip"), 7))
    model, variables = jf.from_pretrained(folder)
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((n, 36)).astype(np.float32) for n in (3, 4))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    scale, bias = (float(variables["params"][f"logit_{name}"]) for name in ("scale", "bias"))
    logits = np.exp(scale) * image @ text.T + bias
    shares = class_probabilities(model, variables, 3 * image, text)
    np.testing.assert_allclose(shares, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert "has no preprocessor_config.json" in refused(
        WeightsError, jf.embed_images, folder, use.pictures()
    )


@pytest.mark.slow
def test_siglips_texts_are_canonicalised_and_padded(tmp_path):
    config, shapes = cases.CASES["siglip"], cases.shapes("siglip")
    length = config["text_config"]["max_position_embeddings"]
    config = config | {"text_config": config["text_config"] | {"vocab_size": 450}}
    name = "text_model.embeddings.token_embedding.weight"
    shapes[name] = [450, *shapes[name][1:]]
    folder = write(tmp_path / "siglip", config, cases.weights(shapes, 7))
    shutil.copy(siglip_lines.model_file("identity"), folder / "spiece.model")
    vectors = jf.embed(folder, ["A photo, of 2 cats!", "a photo of 2 cats", "a dog"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01
    model, variables = jf.from_pretrained(folder)
    ids = jf.load_text(folder).encode("a dog")[0]
    row = np.array([[*ids, *[1] * (length - len(ids))]])
    alone = model.apply(variables, row, method="encode_text")
    np.testing.assert_allclose(vectors[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("rows", [449, 451])
def test_siglips_weights_have_as_many_rows_as_its_tokenizer_pieces(tmp_path, rows):
    config, shapes = cases.CASES["siglip"], cases.shapes("siglip")
    config = config | {"text_config": config["text_config"] | {"vocab_size": rows}}
    shapes["text_model.embeddings.token_embedding.weight"][0] = rows
    folder = write(tmp_path / "siglip", config, cases.weights(shapes, 7))
    shutil.copy(siglip_lines.model_file("identity"), folder / "spiece.model")
    message = f"has 450 tokens, but its weights have {rows}"
    assert message in refused(WeightsError, jf.embed, folder, "a dog")


def test_the_verbs_print_what_the_functions_return(clip, tmp_path, capsys):
    for number, picture in enumerate(use.pictures()):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    (tmp_path / "names.txt").write_text("\ufeffa {brace}\n\ncrane\r\npink primrose\n")
    words = ["zero-shot", str(clip), str(tmp_path), "--name", "crane"]
    assert main([*words, "--names", str(tmp_path / "names.txt"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = jf.zero_shot(clip, use.pictures(), ["crane", *use.NAMES[1:]], top=2)
    expected_lines = [
        "\t".join([str(tmp_path / f"{i}.png"), *(f"{name} {share:.4f}" for name, share in answer)])
        for i, answer in enumerate(answers)
    ]
    assert lines == expected_lines
    assert main(["zero-shot", str(clip), str(tmp_path / "0.png"), "--prompts", "mnist"]) == 0
    digits = list("0123456789")
    template = 'a photo of the number: "{}".'
    (answer,) = jf.zero_shot(clip, use.pictures()[0], digits, template=template, top=5)
    line = "\t".join(f"{name} {share:.4f}" for name, share in answer)
    assert capsys.readouterr().out == f"{tmp_path / '0.png'}\t{line}\n"
    vectors = jf.embed_images(clip, use.pictures(), normalize=True)
    path, output = str(tmp_path / "1.png"), str(tmp_path / "vectors.npy")
    words = ["embed-images", str(clip)]
    assert main([*words, path, "--normalize"]) == 0
    name, *numbers = capsys.readouterr().out.strip().split("\t")
    assert name == path
    np.testing.assert_allclose(np.array(numbers, float), vectors[1], atol=1e-6)
    assert main([*words, str(tmp_path), "--normalize", "--output", output]) == 0
    np.testing.assert_allclose(np.load(output), vectors, atol=1e-6)
    assert "passed over" in capsys.readouterr().err
    assert main([*words, path, "--output", "vectors.txt"]) == 2
    assert main(["zero-shot", str(clip), path]) == 2
    assert main(["zero-shot", str(clip), path, "--names", str(tmp_path / "none.txt")]) == 2
    assert main(["zero-shot", str(clip), path, "--name", "a", "--template", "b"]) == 2
    assert main(["zero-shot", str(clip), path, "--name", "a", "--prompts", "mnist"]) == 2
    assert main(["zero-shot", str(clip), path, "--prompts", "minst"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 6


def test_the_verbs_count_texts_that_they_cut(clip, tmp_path, capsys):
    path = tmp_path / "x.png"
    Image.fromarray(use.pictures()[0]).save(path)
    words = ["zero-shot", str(clip), str(path), "--name", use.LONG, "--name", "a", "--truncate"]
    assert main(words) == 0
    output = capsys.readouterr()
    assert output.err == "jaxformers: cut 1 of 2 texts to the 77 tokens that the model takes\n"
    assert main(["search", str(clip), use.LONG, str(tmp_path), "--truncate"]) == 0
    assert "jaxformers: cut 1 of 1 texts to the 77" in capsys.readouterr().err


def refused(kind, call, *args, **options) -> str:
    with pytest.raises(kind) as raised:
        call(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_bad_input_is_refused_in_one_line(clip, tmp_path):
    picture = use.pictures()[0]
    assert "has no {}" in refused(
        ConfigError, jf.zero_shot, clip, picture, ["a"], template="a photo"
    )
    assert "no templates" in refused(ConfigError, jf.zero_shot, clip, picture, ["a"], template=[])
    assert "no class names" in refused(DataError, jf.zero_shot, clip, picture, [])
    assert "the model takes 75" in refused(DataError, jf.zero_shot, clip, picture, [use.LONG])
    with pytest.warns(UserWarning, match="cut 1 of 2 texts to the 77 tokens"):
        assert len(jf.zero_shot(clip, picture, [use.LONG, "a"], truncate=True)[0]) == 2
    assert "leave it out" in refused(ConfigError, jf.embed, clip, "a", pooling="cls")
    folder = write(tmp_path / "small", cases.CASES["clip"], cases.weights(cases.shapes("clip"), 7))
    assert "no tokenizer in" in refused(UserError, jf.zero_shot, folder, picture, ["a"])
    model, variables = jf.from_pretrained(folder)
    source = (model, variables, Processor(CLIPTokenizer(), jf.load_images(clip)))
    assert "49,408 tokens, but its weights have 99" in refused(
        WeightsError, jf.zero_shot, source, picture, ["a"]
    )
