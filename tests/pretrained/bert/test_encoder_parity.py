"""RoBERTa, its namesakes and DistilBERT against Hugging Face: every head, in and out."""

import encoder_cases as cases
import jax
import numpy as np
import pytest
from folders import read, write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, load_text_backbone, save_pretrained

NAMES = list(cases.CASES)
# Written under RoBERTa's name unless another format is asked for.
FORMATS = {"camembert": "camembert", "xlm_roberta": "xlm-roberta"}


def case(name, folder, **changes):
    config, seed = cases.CASES[name] | changes, NAMES.index(name)
    tensors = cases.weights(config, seed)
    return write(folder, config, tensors), tensors, cases.batch(config, seed)


def outputs(model, variables, batch):
    arrays = model.apply(variables, **batch)
    return [x for x in (arrays if isinstance(arrays, tuple) else (arrays,)) if x is not None]


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    check_outputs(name, tmp_path, Execution())


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["roberta_classes", *sorted({*NAMES} - {"roberta_classes"})])
def test_outputs_equal_hugging_faces_on_the_path_of_tpus(name, tmp_path):
    check_outputs(name, tmp_path, Execution(target="tpu"))


def check_outputs(name, tmp_path, execution):
    folder, _, batch = case(name, tmp_path)
    golden = np.load(cases.LOGITS)
    arrays = outputs(*load_pretrained(folder, execution), batch)
    assert len(arrays) == sum(key.rsplit("_", 1)[0] == name for key in golden)
    for i, array in enumerate(arrays):
        np.testing.assert_allclose(array, golden[f"{name}_{i}"], rtol=0, atol=2e-5)


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format=FORMATS.get(name, "auto"))
    config, saved = read(tmp_path / "ours")
    assert saved.keys() == tensors.keys()
    assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
    expected = cases.CASES[name]
    assert {key: config[key] for key in expected} == expected
    assert load_pretrained(tmp_path / "ours")[0] == model
    save_pretrained(model, variables, tmp_path / "again")
    config, again = read(tmp_path / "again")
    assert config["model_type"] == expected["model_type"].replace(FORMATS.get(name, "-"), "roberta")
    assert all(np.array_equal(again[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", ["distilbert_words", "roberta_classes"])
def test_our_own_format_keeps_every_head(name, tmp_path):
    folder, _, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.parametrize("name", ["roberta_classes", "roberta_spans", "roberta_words"])
def test_tensors_that_older_files_hold_beside_are_read(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path)
    _, expected = load_pretrained(folder)
    tensors["roberta.embeddings.position_ids"] = np.arange(19)[None]
    if name == "roberta_words":
        tensors["lm_head.decoder.weight"] = tensors["roberta.embeddings.word_embeddings.weight"]
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"].copy()
        tensors["lm_head.decoder.weight"] = tensors["lm_head.decoder.weight"].copy()
    tensors["roberta.pooler.dense.weight"] = np.ones((24, 24), np.float32)
    tensors["roberta.pooler.dense.bias"] = np.ones(24, np.float32)
    config = {key: value for key, value in cases.CASES[name].items() if key != "model_type"}
    write(folder, config, tensors)
    model, variables = load_pretrained(folder)
    assert model.config.variant == "roberta"
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("distilbert", {"architectures": ["DistilBertForMultipleChoice"]}, "MultipleChoice"),
        ("distilbert", {"dropout": 1}, "dropout is 1"),
        ("distilbert", {"hidden_size": 48}, "hidden_size and dim differ"),
        ("distilbert", {"pad_token_id": 97}, "pad_token_id is 97"),
        ("distilbert", {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ("roberta", {"architectures": ["RobertaForMultipleChoice"]}, "RobertaForMultipleChoice"),
        ("roberta", {"is_decoder": True}, "is_decoder is True"),
        ("roberta", {"max_position_embeddings": 2}, "no position behind .* pad_token_id 1"),
        ("roberta", {"model_type": "mpnet"}, "model_type 'mpnet' is not supported"),
        ("roberta", {"model_type": "roberta-prelayernorm"}, "'roberta-prelayernorm' is not"),
        ("roberta", {"pad_token_id": None}, "pad_token_id is None, and RoBERTa counts positions"),
        ("roberta", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("xlm_roberta", {"model_type": "xlm-roberta-xl"}, "'xlm-roberta-xl' is not supported"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_in_one_line(name, changes, words, tmp_path):
    folder, tensors, _ = case(name, tmp_path)
    write(folder, cases.CASES[name] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_aliases_and_defaults_of_transformers_configurations_are_read(tmp_path):
    config = cases.CASES["distilbert"]
    aliases = {"hidden_size": config["dim"], "num_attention_heads": config["n_heads"]}
    short = {key: value for key, value in config.items() if key not in ("dim", "n_heads")}
    tensors = case("distilbert", tmp_path / "theirs")[1]
    write(tmp_path / "aliases", short | aliases, tensors)
    expected = load_pretrained(tmp_path / "theirs")[0]
    assert load_pretrained(tmp_path / "aliases")[0] == expected


def test_untyped_folders_of_roberta_are_not_taken_for_berts(tmp_path):
    config, (_, tensors, _) = cases.CASES["roberta"], case("roberta", tmp_path)
    config = {k: v for k, v in config.items() if k not in ("model_type", "architectures")}
    tensors["embeddings.token_type_embeddings.weight"] = np.zeros((1, 24), np.float32)
    write(tmp_path, config | {"type_vocab_size": 1}, tensors)
    with pytest.raises(WeightsError, match="has no model_type"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "format", "words"),
    [
        (jf.BertConfig.tiny(), "roberta", "it is no RoBERTa"),
        (jf.BertConfig.distilbert(layers=1, norm_epsilon=1e-5), "distilbert", "norm_epsilon"),
        (jf.BertConfig.roberta(1, 64), "bert", "it is no BERT"),
    ],
    ids=["bert", "epsilon", "roberta"],
)
def test_what_a_format_cannot_express_is_refused(config, format, words, tmp_path):
    model = jf.BertForPreTraining(config)
    with pytest.raises(WeightsError, match=words):
        save_pretrained(model, {}, tmp_path, format=format)


@pytest.mark.parametrize("name", ["distilbert_words", "roberta_words"])
def test_the_encoder_starts_a_classifier(name, tmp_path):
    folder, _, _ = case(name, tmp_path)
    source, variables = load_pretrained(folder)
    backbone = load_text_backbone(folder, jf.BertForSequenceClassification(source.config))
    assert set(backbone) == {"bert"}
    jax.tree.map(np.testing.assert_array_equal, backbone["bert"], variables["params"]["bert"])


def test_an_encoder_of_another_variant_says_what_to_set(tmp_path):
    folder, _, _ = case("distilbert", tmp_path)
    model = jf.BertForSequenceClassification(jf.BertConfig.tiny())
    with pytest.raises(
        WeightsError,
        match=r"--task\.model\.variant distilbert .*--task\.model\.type-vocab-size 0",
    ):
        load_text_backbone(folder, model)
