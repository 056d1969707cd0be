"""BERT against Hugging Face: outputs of every head, round trips, and old files."""

from dataclasses import replace

import bert_cases as cases
import jax
import numpy as np
import pytest
from folders import read, write

import jaxformers as jf
from jaxformers.errors import WeightsError
from jaxformers.layers import Execution
from jaxformers.pretrained import load_pretrained, load_text_backbone, save_pretrained

NAMES = list(cases.CASES)


def case(name, folder, **changes):
    config, seed = cases.CASES[name] | changes, NAMES.index(name)
    tensors = cases.weights(config, seed)
    return write(folder, config, tensors), tensors, cases.batch(config, seed)


def outputs(model, variables, batch):
    output = model.apply(variables, **batch)
    return [x for x in (output if isinstance(output, tuple) else (output,)) if x is not None]


@pytest.mark.default_cases(2)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_hugging_faces(name, tmp_path):
    check_outputs(name, tmp_path, Execution())


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["pretraining", *sorted({*NAMES} - {"pretraining"})])
def test_outputs_equal_hugging_faces_on_the_path_of_tpus(name, tmp_path):
    check_outputs(name, tmp_path, Execution(target="tpu"))


def check_outputs(name, tmp_path, execution):
    folder, _, batch = case(name, tmp_path)
    golden = np.load(cases.LOGITS)
    actual = outputs(*load_pretrained(folder, execution), batch)
    assert len(actual) == len(cases.OUTPUTS[cases.CASES[name]["architectures"][0]])
    for i, output in enumerate(actual):
        expected = golden[f"{name}_{i}"]
        np.testing.assert_allclose(output, expected, rtol=0, atol=2e-5)


@pytest.mark.default_cases(3)
@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_the_very_tensors_and_fields(name, tmp_path):
    folder, tensors, _ = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours")
    config, saved = read(tmp_path / "ours")
    assert saved.keys() == tensors.keys()
    assert all(np.array_equal(saved[key], tensors[key]) for key in tensors)
    expected = cases.CASES[name]
    assert {key: config[key] for key in expected} == expected
    again = load_pretrained(tmp_path / "ours")[0]
    if name == "regression":  # what a single label means without a problem_type is stated
        model = model.clone(config=replace(model.config, problem_type="regression"))
    assert again == model


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("name", ["pretraining", "classifier", "spans", "encoder", "tokens"])
def test_our_own_format_keeps_every_head(name, tmp_path):
    folder, _, batch = case(name, tmp_path / "theirs")
    model, variables = load_pretrained(folder)
    save_pretrained(model, variables, tmp_path / "ours", format="jaxformers")
    again, loaded = load_pretrained(tmp_path / "ours")
    assert again == model
    for a, b in zip(outputs(again, loaded, batch), outputs(model, variables, batch), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["pretraining", "encoder"])
def test_names_of_2018_are_read(name, tmp_path):
    folder, tensors, batch = case(name, tmp_path / "new")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in tensors.items()
    }
    prefix = "bert." if name == "pretraining" else ""
    old[f"{prefix}embeddings.position_ids"] = np.arange(19)[None]
    if name == "pretraining":
        old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].copy()
        old["cls.predictions.decoder.bias"] = old["cls.predictions.bias"].copy()
    config = cases.CASES[name].items()
    config = {k: v for k, v in config if k not in ("architectures", "model_type")}
    write(tmp_path / "old", config, old)
    load_text_backbone(tmp_path / "old", load_pretrained(folder)[0])
    expected = outputs(*load_pretrained(folder), batch)
    for a, b in zip(outputs(*load_pretrained(tmp_path / "old"), batch), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_head_over_an_encoder_without_prefix_is_read(tmp_path):
    folder, tensors, batch = case("classifier", tmp_path / "new")
    bare = {key.removeprefix("bert."): value for key, value in tensors.items()}
    write(tmp_path / "bare", cases.CASES["classifier"], bare)
    (expected,) = outputs(*load_pretrained(folder), batch)
    (actual,) = outputs(*load_pretrained(tmp_path / "bare"), batch)
    np.testing.assert_array_equal(actual, expected)


def test_a_classifier_of_texts_without_its_pooler_is_refused(tmp_path):
    folder, tensors, _ = case("classifier", tmp_path)
    tensors = {key: value for key, value in tensors.items() if "pooler" not in key}
    write(folder, cases.CASES["classifier"], tensors)
    with pytest.raises(WeightsError, match=r"missing bert\.pooler\.dense\.weight"):
        load_pretrained(folder)


@pytest.mark.parametrize("architectures", [None, ["BertForTokenClassification"]])
def test_the_head_over_tokens_is_known_by_its_name_or_by_the_missing_pooler(
    architectures, tmp_path
):
    folder, tensors, batch = case("tokens", tmp_path / "named")
    (expected,) = outputs(*load_pretrained(folder), batch)
    pooler = {"bert.pooler.dense.weight": (24, 24), "bert.pooler.dense.bias": (24,)}
    if architectures:  # old files keep the pooler that nothing trained
        tensors |= {name: np.ones(shape, np.float32) for name, shape in pooler.items()}
    write(tmp_path / "old", cases.CASES["tokens"] | {"architectures": architectures}, tensors)
    model, variables = load_pretrained(tmp_path / "old")
    assert isinstance(model, jf.BertForTokenClassification)
    assert model.config.label_names == tuple(f"class {i}" for i in range(7))
    np.testing.assert_array_equal(outputs(model, variables, batch)[0], expected)


def test_an_untied_decoder_is_refused(tmp_path):
    folder, tensors, _ = case("pretraining", tmp_path)
    tensors["cls.predictions.decoder.weight"] = (
        tensors["bert.embeddings.word_embeddings.weight"] + 1
    )
    write(folder, cases.CASES["pretraining"], tensors)
    with pytest.raises(WeightsError, match="one table for both"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"pad_token_id": 97}, "pad_token_id"),
        ({"num_attention_heads": 5}, "5 heads do not divide"),
        ({"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
        ({"vocab_size": 98}, "word_embeddings.weight .97, 24. instead of .98, 24."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_not_supported_is_refused_in_one_line(changes, words, tmp_path):
    folder, tensors, _ = case("classifier", tmp_path)
    write(folder, cases.CASES["classifier"] | changes, tensors)
    with pytest.raises(WeightsError, match=words) as error:
        load_pretrained(folder)
    assert "\n" not in str(error.value)


def test_a_missing_and_an_unknown_tensor_are_named(tmp_path):
    folder, tensors, _ = case("spans", tmp_path)
    del tensors["bert.encoder.layer.1.output.dense.bias"]
    tensors["bert.extra"] = np.zeros(3, np.float32)
    write(folder, cases.CASES["spans"], tensors)
    with pytest.raises(
        WeightsError,
        match=r"missing bert.encoder.layer.1.output.dense.bias; .*"
        r"unexpected bert.extra",
    ):
        load_pretrained(folder)


def test_the_encoder_starts_another_head(tmp_path):
    folder, _, batch = case("pretraining", tmp_path)
    source, variables = load_pretrained(folder)
    model = jf.BertForSequenceClassification(source.config, Execution(vocab_multiple=8))
    backbone = load_text_backbone(folder, model)
    assert set(backbone) == {"bert"}
    fresh = model.init(jax.random.key(0), batch["input_ids"])["params"]
    params = {**fresh, **backbone}
    expected = source.apply(variables, **batch, method=lambda m, **x: m.bert(**x).pooled)
    actual = model.apply({"params": params}, **batch, method=lambda m, **x: m.bert(**x).pooled)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["pretraining", "spans"])
def test_a_head_for_words_sentences_or_spans_is_kept(name, tmp_path):
    folder, _, batch = case(name, tmp_path)
    source, variables = load_pretrained(folder)
    model = type(source)(source.config, Execution(vocab_multiple=8))
    actual = outputs(model, {"params": load_text_backbone(folder, model)}, batch)
    for a, b in zip(actual, outputs(source, variables, batch), strict=True):
        np.testing.assert_allclose(a[..., : b.shape[-1]], b, atol=1e-6)


@pytest.mark.parametrize("name", ["classifier", "tokens"])
def test_a_classifier_begins_anew(name, tmp_path):
    folder, _, _ = case(name, tmp_path)
    assert set(load_text_backbone(folder, load_pretrained(folder)[0])) == {"bert"}


def test_an_encoder_of_another_shape_says_what_to_set(tmp_path):
    folder, _, _ = case("pretraining", tmp_path)
    model = jf.BertForSpanExtraction(jf.BertConfig.tiny(vocab_size=97))
    with pytest.raises(
        WeightsError, match=r"--task\.model\.width 24 .*--task\.model\.max-length 19"
    ):
        load_text_backbone(folder, model)
