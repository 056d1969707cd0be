"""A text folder that is exported and imported again is used with the same results, whole."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import bert_use as use
import text_folders

import jaxformers as jf
from jaxformers.cli import command
from jaxformers.errors import WeightsError
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.text import SentencePiece

SENTENCES = ["Click the button.", "", "Open the file"]
GENERATION = {
    "num_beams": 3, "length_penalty": 1.5, "no_repeat_ngram_size": 2, "max_length": 30,
    "eos_token_id": 0, "pad_token_id": 670, "decoder_start_token_id": 670,
    "forced_eos_token_id": 0, "bad_words_ids": [[670]], "renormalize_logits": True,
}  # fmt: skip
USES = {
    "old_sentences": lambda folder: jf.embed(folder, use.TEXTS).tolist(),
    "marian": lambda folder: jf.translate(folder, SENTENCES, n_best=2),
    "own": lambda folder: jf.translate(folder, SENTENCES, n_best=2),
    "spans": lambda folder: jf.answer(folder, *zip(*use.QUESTIONS, strict=True)),
    "sentences": lambda folder: jf.embed(folder, use.TEXTS).tolist(),
    "classes": lambda folder: jf.classify(folder, [*use.TEXTS, *use.PAIRS]),
    "words": lambda folder: jf.fill_mask(folder, use.MASKED),
    "number": lambda folder: jf.classify(folder, use.TEXTS),
    "encoder": lambda folder: jf.embed(folder, use.TEXTS).tolist(),
}


def dense(folder: Path, width: int, outputs: int, **config) -> Path:
    """Adds a linear layer of sentence-transformers behind the pooling."""
    dense_folder = folder / "2_Dense"
    dense_folder.mkdir()
    rng = np.random.RandomState(0)
    tensors = {"linear.weight": rng.randn(outputs, width), "linear.bias": rng.randn(outputs)}
    if config.get("bias") is False:
        del tensors["linear.bias"]
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, dense_folder / "model.safetensors")
    settings = dict(in_features=width, out_features=outputs, bias=True) | config
    settings.setdefault("activation_function", "torch.nn.modules.activation.Tanh")
    (dense_folder / "config.json").write_text(json.dumps(settings))
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "s.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def sentences(folder: Path) -> Path:
    """An encoder with a pooling of two modes, a linear layer, a limit and a prompt."""
    use.folder("encoder", folder)
    use.pooling(folder, "cls_token", "weightedmean_tokens", normalize=True, max_seq_length=9)
    prompts = {"prompts": {"query": "who: ", "other": "x"}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return dense(folder, 48, 5)


def old_sentences(folder: Path) -> Path:
    """The same with the encoder in a folder of its own."""
    sentences(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json",
                 "sentence_bert_config.json"):  # fmt: skip
        (folder / name).rename(inner / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def own(folder: Path) -> Path:
    """A translation Transformer in our own format, with a vocabulary of its own."""
    tokenizer = SentencePiece.train(["Open the file.", "Click the button now."] * 9, 40, "bpe")
    config = TransformerConfig(
        40, width=8, heads=2, feed_forward=8, encoder_layers=1, decoder_layers=1, max_length=80
    )
    model, ids = Transformer(config), np.zeros((1, 1), np.int32)
    variables = model.init(jax.random.key(0), ids, ids)
    jf.save_pretrained(model, variables, folder, tokenizer=tokenizer)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    return {name: use.folder(name, root / name) for name in use.FOLDERS} | {
        "sentences": sentences(root / "sentences"),
        "old_sentences": old_sentences(root / "old_sentences"),
        "marian": text_folders.marian(root / "marian", generation=GENERATION),
        "own": own(root / "own"),
    }


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", USES)
def test_a_converted_folder_is_used_with_the_same_results(folders, name, tmp_path, capsys):
    assert command.main(["convert", str(folders[name]), str(tmp_path / "new")]) == 0
    assert USES[name](tmp_path / "new") == USES[name](folders[name])


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["sentences", "marian", "own"])
def test_a_folder_saved_with_anothers_tokenizer_is_used_with_the_same_results(
    folders, name, tmp_path
):
    model, variables = jf.from_pretrained(folders[name])
    for form in ("auto", "jaxformers"):
        jf.save_pretrained(model, variables, tmp_path / form, form, tokenizer=folders[name])
        assert USES[name](tmp_path / form) == USES[name](folders[name])


def test_an_exported_folder_keeps_all_that_sentence_transformers_reads(folders, tmp_path):
    command.main(["convert", str(folders["old_sentences"]), str(tmp_path / "new")])
    modules = json.loads((tmp_path / "new" / "modules.json").read_text())
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    assert kinds == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert [module["path"] for module in modules[:3]] == ["", "1_Pooling", "2_Dense"]
    source, name = folders["old_sentences"], "config_sentence_transformers.json"
    assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()


def test_weights_saved_again_into_their_folder_keep_its_pooling(folders, tmp_path):
    folder = shutil.copytree(folders["sentences"], tmp_path / "again")
    model, variables = jf.from_pretrained(folder)
    jf.save_pretrained(model, variables, folder, tokenizer=jf.load_text(folder))
    assert USES["sentences"](folder) == USES["sentences"](folders["sentences"])


@pytest.mark.slow
def test_files_of_an_earlier_tokenizer_and_pooling_do_not_stay(folders, tmp_path):
    for name in ("sentences", "marian", "encoder"):
        model, variables = jf.from_pretrained(folders[name])
        jf.save_pretrained(model, variables, tmp_path, tokenizer=folders[name])
    assert USES["encoder"](tmp_path) == USES["encoder"](folders["encoder"])


def test_a_pooling_that_is_not_supported_is_not_lost_without_a_word(folders, tmp_path):
    folder = shutil.copytree(folders["sentences"], tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 4, "name": "4", "path": "4_CNN", "type": "s.models.CNN"})
    (folder / "modules.json").write_text(json.dumps(modules))
    model, variables = jf.from_pretrained(folder)
    with pytest.raises(WeightsError, match=r"CNN are not supported.*leave it out"):
        jf.save_pretrained(model, variables, tmp_path / "new", tokenizer=folder)
    jf.save_pretrained(model, variables, tmp_path / "new", tokenizer=jf.load_text(folder))


# ---------------------------------------------------------------- modules behind the pooling


def test_linear_layers_follow_the_pooling(folders, tmp_path):
    """tanh(W v + b) and the identity without a bias, as torch's Linear computes them."""
    folder = use.folder("encoder", tmp_path / "m")
    use.pooling(folder, "mean_tokens")
    plain = jf.embed(folder, use.TEXTS)
    dense(folder, 24, 7)
    tensors = safetensors.numpy.load_file(folder / "2_Dense" / "model.safetensors")
    expected = np.tanh(plain @ tensors["linear.weight"].T + tensors["linear.bias"])
    np.testing.assert_allclose(jf.embed(folder, use.TEXTS), expected, atol=2e-5)
    shutil.rmtree(folder / "2_Dense")
    use.pooling(folder, "mean_tokens", normalize=True)
    dense(folder, 24, 7, bias=False, activation_function="torch.nn.modules.linear.Identity")
    expected = plain @ tensors["linear.weight"].T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(jf.embed(folder, use.TEXTS), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(activation_function="torch.nn.modules.activation.PReLU"), "activation_function is"),
        (dict(module_input_name="token_embeddings"), "module_input_name is 'token_embeddings'"),
        (dict(in_features=23), "linear.weight"),
    ],
)
def test_a_linear_layer_that_is_not_supported_is_refused_by_its_field(change, message, tmp_path):
    folder = use.folder("encoder", tmp_path / "m")
    use.pooling(folder, "mean_tokens")
    dense(folder, 24, 7)
    file = folder / "2_Dense" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(WeightsError, match=message):
        jf.embed(folder, ["a"])


def test_a_linear_layer_in_a_pickle_or_of_another_width_is_refused(tmp_path):
    folder = use.folder("encoder", tmp_path / "m")
    use.pooling(folder, "mean_tokens", "cls_token")
    dense(folder, 24, 7)
    with pytest.raises(WeightsError, match="reads vectors of 24 numbers, but the pooling gives 48"):
        jf.embed(folder, ["a"])
    weights = folder / "2_Dense" / "model.safetensors"
    weights.rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="is a pickle: torch_to_safetensors"):
        jf.embed(folder, ["a"])


def test_added_tokens_beside_the_vocabulary_go_along(tmp_path):
    count = len(use.VOCABULARY)
    folder = use.folder("encoder", tmp_path / "m", vocab_size=count + 1)
    (folder / "added_tokens.json").write_text(json.dumps({"[E1]": count}))
    assert jf.load_text(folder).encode("[E1]") == [[count]]
    command.main(["convert", str(folder), str(tmp_path / "new")])
    model, variables = jf.from_pretrained(folder)
    jf.save_pretrained(model, variables, tmp_path / "saved", tokenizer=jf.load_text(folder))
    texts = ["who [E1] left", "the baker"]
    for exported in ("new", "saved"):
        np.testing.assert_array_equal(jf.embed(tmp_path / exported, texts), jf.embed(folder, texts))
