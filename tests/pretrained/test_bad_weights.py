"""Damaged, foreign and unsupported folders: one line that names what is wrong, nothing loaded."""

import json

import jax
import numpy as np
import pytest
from marian_folders import SMALL, cases, random_variables, small, write

from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.models import Transformer, TransformerConfig
from jaxformers.pretrained import load_pretrained, save_pretrained
from jaxformers.pretrained.formats import safetensors_folder

WEIGHTS = "model.safetensors"
NAME = "model.decoder.layers.0.encoder_attn.q_proj.weight"


def complaint(path, *phrases, **options):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    for phrase in phrases:
        assert phrase in message, message
    return message


def with_tensors(folder, change):
    tensors = cases.weights(SMALL, 0)
    change(tensors)
    return write(folder, SMALL, tensors)


def test_a_missing_tensor_is_named(tmp_path):
    folder = with_tensors(tmp_path, lambda t: t.pop(NAME))
    assert complaint(folder, f"missing {NAME}").count("model.decoder") == 1


def test_an_extra_tensor_is_named(tmp_path):
    folder = with_tensors(tmp_path, lambda t: t.update(surprise=np.zeros(3, np.float32)))
    complaint(folder, "unexpected surprise")


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path):
    folder = with_tensors(tmp_path, lambda t: t.update({NAME: np.zeros((24, 23), np.float32)}))
    complaint(folder, f"misshapen {NAME} [24, 23] instead of [24, 24]")


def test_every_fault_is_named_at_once(tmp_path):
    def change(tensors):
        tensors["surprise"] = tensors.pop(NAME)
        tensors["model.shared.weight"] = tensors["model.shared.weight"][:-1]

    complaint(with_tensors(tmp_path, change), f"missing {NAME}", "unexpected surprise", "[96, 24]")


def test_long_lists_are_cut_and_counted(tmp_path):
    complaint(small(tmp_path, {"encoder_layers": 4}), "model.encoder.layers.3.", "and 11 more")


def test_an_untied_head_is_refused(tmp_path):
    folder = with_tensors(
        tmp_path, lambda t: t.update({"lm_head.weight": t["model.shared.weight"] + 1})
    )
    complaint(folder, "lm_head.weight differs from model.shared.weight")


def test_whole_numbers_are_no_weights(tmp_path):
    folder = with_tensors(tmp_path, lambda t: t.update({NAME: np.zeros((24, 24), np.int64)}))
    complaint(folder, NAME, "I64")


def test_positions_that_are_not_marians_sinusoids_are_refused(tmp_path):
    positions = np.ones((40, 24), np.float32)
    name = "model.encoder.embed_positions.weight"
    complaint(with_tensors(tmp_path, lambda t: t.update({name: positions})), name)


@pytest.mark.parametrize("end", [0, 7, 100, 5000, -1])
def test_a_truncated_file_is_refused(end, tmp_path):
    file = small(tmp_path) / WEIGHTS
    file.write_bytes(file.read_bytes()[:end])
    complaint(tmp_path, str(file), "truncated")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>not found</html>" * 100,
        b"\x80\x02}q\x00." * 100,
        (2**62).to_bytes(8, "little") + b"{}",
        (200 << 20).to_bytes(8, "little") + b"{}",
        (5).to_bytes(8, "little") + b"hello" + bytes(64),
    ],
    ids=["web page", "pickle", "huge header", "large header", "no JSON"],
)
def test_a_file_with_a_wrong_header_is_refused(content, tmp_path):
    file = small(tmp_path) / WEIGHTS
    file.write_bytes(content)
    complaint(tmp_path, str(file))


def test_a_pickle_is_refused_with_the_way_out(tmp_path):
    (small(tmp_path) / WEIGHTS).rename(tmp_path / "pytorch_model.bin")
    complaint(tmp_path, "pytorch_model.bin", "pickle", "safe_serialization=True")


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    (small(tmp_path) / WEIGHTS).unlink()
    complaint(tmp_path, WEIGHTS, "model.safetensors.index.json")


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_may_only_name_files_beside_it(file, tmp_path):
    (small(tmp_path) / WEIGHTS).rename(tmp_path / "part.safetensors")
    index = {"weight_map": dict.fromkeys(cases.weights(SMALL, 0), "part.safetensors")}
    index["weight_map"][NAME] = file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    complaint(tmp_path, "which is no safetensors file beside it")


def test_an_index_must_match_its_files(tmp_path):
    (small(tmp_path) / WEIGHTS).rename(tmp_path / "part.safetensors")
    index = {"weight_map": dict.fromkeys(cases.weights(SMALL, 0), "part.safetensors")}
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": index["weight_map"] | {"more": "part.safetensors"}}))
    complaint(tmp_path, "places more in part.safetensors")
    file.write_text(json.dumps({"weight_map": index["weight_map"] | {"more": "b.safetensors"}}))
    complaint(tmp_path, "names b.safetensors, which is missing")


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"model_type": "mariam"}, ["'mariam' is not supported", "did you mean marian"]),
        ({"model_type": "gpt2"}, ["'gpt2' is not supported"]),
        ({"model_type": None}, ["no model_type"]),
        ({"d_model": "wide"}, ["d_model is 'wide'"]),
        ({"d_model": True}, ["d_model is True"]),
        ({"encoder_layers": -1}, ["encoder_layers is -1"]),
        ({"encoder_layers": 10**9}, ["encoder_layers is 1000000000, larger than any"]),
        ({"d_model": 10**12}, ["d_model is 1000000000000, larger than any"]),
        ({"encoder_attention_heads": 5}, ["5 heads do not divide"]),
        ({"activation_function": "mish"}, ["activation_function is 'mish'"]),
        ({"activation_function": ["relu"]}, ["activation_function is ['relu']"]),
        ({"dropout": 1.5}, ["dropout is 1.5"]),
        ({"scale_embedding": "yes"}, ["scale_embedding is 'yes'"]),
        ({"normalize_before": True}, ["normalize_before is True"]),
        ({"add_final_layer_norm": True}, ["add_final_layer_norm is True"]),
        ({"share_encoder_decoder_embeddings": False}, ["share_encoder_decoder_embeddings"]),
        ({"tie_word_embeddings": False}, ["tie_word_embeddings is False"]),
        ({"decoder_vocab_size": 50}, ["decoder_vocab_size is 50"]),
        ({"pad_token_id": 97}, ["pad_token_id 97 is outside 97 tokens"]),
        ({"eos_token_id": [0, 1]}, ["eos_token_id is [0, 1]"]),
        ({"bad_words_ids": [[3, 4]]}, ["bad_words_ids is [[3, 4]]", "words of one token"]),
        ({"bad_words_ids": [[1000]]}, ["bad_words_ids[0] 1000"]),
        ({"bad_words_ids": 3}, ["bad_words_ids is 3"]),
        ({"vocab_size": 98, "decoder_vocab_size": 98}, ["model.shared.weight [97, 24]"]),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_its_field(changes, phrases, tmp_path):
    complaint(small(tmp_path, changes), *phrases)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (2 << 20)])
def test_a_config_that_is_no_object_is_refused(content, tmp_path):
    (small(tmp_path) / "config.json").write_bytes(content)
    complaint(tmp_path, "config.json")


def test_a_path_that_is_no_model_says_so(tmp_path):
    complaint(tmp_path, "no config.json")
    complaint(tmp_path / "absent" / "folder", "there is no folder")
    complaint(small(tmp_path) / WEIGHTS, "no known model has its tensors")
    (tmp_path / "notes.txt").write_text("none")
    complaint(tmp_path / "notes.txt", "is a file")


def test_a_hub_name_without_a_network_is_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    def offline(*_, **__):
        raise LocalEntryNotFoundError("cannot connect\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    complaint("Helsinki-NLP/opus-mt-en-de", "cannot be reached (cannot connect)")
    assert issubclass(RepositoryNotFoundError, Exception)


def test_a_hub_name_is_fetched_without_pickles(monkeypatch, tmp_path):
    import huggingface_hub

    calls = []

    def fetch(repository, *, revision, allow_patterns):
        calls.append((repository, revision, tuple(allow_patterns)))
        return str(small(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load_pretrained("org/name@refs/pr/3")
    patterns = ("*.json", "*.safetensors", "*.spm", "spiece.model", "vocab.txt", "merges.txt")
    assert calls == [("org/name", "refs/pr/3", patterns)]


def random_model(config, **changes):
    model = Transformer(TransformerConfig(**(config | changes)))
    return model, random_variables(model)


TINY = dict(vocab_size=11, width=8, heads=2, feed_forward=12, encoder_layers=1, decoder_layers=1)
MARIAN = TINY | dict(positions="marian", norm_epsilon=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "interleaved"}, "positions is 'interleaved'"),
        ({"norm_position": "pre"}, "norm_position is 'pre'"),
        ({"norm_epsilon": 1e-6}, "norm_epsilon is 1e-06"),
        ({"zero_pad": True}, "zero_pad"),
    ],
)
def test_what_marian_cannot_express_is_refused_by_its_field(changes, message, tmp_path):
    model, variables = random_model(MARIAN, **changes)
    with pytest.raises(WeightsError, match=message):
        save_pretrained(model, variables, tmp_path / "out", format="marian")
    assert not (tmp_path / "out").exists()
    save_pretrained(model, variables, tmp_path / "out")
    assert load_pretrained(tmp_path / "out")[0].config == model.config


def test_what_marian_can_express_is_saved_exactly(tmp_path):
    model, variables = random_model(MARIAN, zero_pad=True, attention_bias=False)
    variables["params"]["token_embedding"]["table"][0] = 0.0
    save_pretrained(model, variables, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "marian"
    again, loaded = load_pretrained(tmp_path / "out")
    source, target = np.array([[3, 4, 5, 1]]), np.array([[0, 6, 7]])
    # Two programs, a bias more in one of them: equal to the last digits of float32.
    np.testing.assert_allclose(
        jax.jit(again.apply)(loaded, source, target),
        jax.jit(model.apply)(variables, source, target),
        rtol=2e-6,
        atol=2e-6,
    )


def test_variables_that_do_not_fit_their_model_are_refused_by_name(tmp_path):
    model, variables = random_model(MARIAN)
    params = dict(variables["params"]) | {"extra": {"kernel": np.zeros(2)}}
    params["token_embedding"] = {"table": np.zeros((3, 8))}
    del params["encoder"]
    for format in ("auto", "jaxformers", "marian"):
        with pytest.raises(WeightsError) as caught:
            save_pretrained(model, {"params": params}, tmp_path / "out", format=format)
        for phrase in ("missing params/encoder", "extra/kernel", "table [3, 8] instead of [11, 8]"):
            assert phrase in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    model, variables = random_model(MARIAN, zero_pad=False)
    save_pretrained(model, variables, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors_folder, "_write_tokenizer", full)
    with pytest.raises(WeightsError, match=r"cannot write .* No space left on device"):
        save_pretrained(model, variables, tmp_path / "out")
    with pytest.raises(WeightsError, match="it is a file"):
        save_pretrained(model, variables, tmp_path / "out" / "config.json")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_vocabulary_multiple_does_not_hide_a_wrong_vocabulary(tmp_path):
    folder = small(tmp_path, {"vocab_size": 100, "decoder_vocab_size": 100})
    complaint(folder, "model.shared.weight [97, 24]", execution=Execution(vocab_multiple=8))
