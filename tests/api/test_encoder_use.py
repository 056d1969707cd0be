"""RoBERTa, XLM-RoBERTa and DistilBERT at work, against transformers' pipelines."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))

import bert_use
import encoder_use as use

import jaxformers as jf

GOLDEN = json.loads(use.GOLDEN.read_text())


@pytest.mark.parametrize("family", use.FAMILIES)
def test_masked_words_are_those_of_transformers(family, tmp_path):
    folder = use.folder(family, "words", tmp_path)
    texts = [text.replace("[MASK]", use.mask_token(family)) for text in use.MASKED]
    results = jf.fill_mask(folder, texts, top=3)
    for masks, golden in zip(results, GOLDEN[family]["words"], strict=True):
        for candidates, expected in zip(masks, golden, strict=True):
            assert [token for token, _ in candidates] == [token for token, _ in expected]
            np.testing.assert_allclose([p for _, p in candidates], [p for _, p in expected], 1e-4)


@pytest.mark.parametrize("family", use.FAMILIES)
def test_classes_of_texts_and_pairs_are_those_of_transformers(family, tmp_path):
    folder = use.folder(family, "classes", tmp_path)
    results = jf.classify(folder, [*use.TEXTS, *use.PAIRS])
    expected = GOLDEN[family]["classes"]
    assert [label for label, _ in results] == [label for label, _ in expected]
    np.testing.assert_allclose([p for _, p in results], [p for _, p in expected], rtol=1e-4)


@pytest.mark.parametrize("family", use.FAMILIES)
def test_answers_are_the_best_spans_by_transformers_logits(family, tmp_path):
    folder = use.folder(family, "spans", tmp_path)
    questions, contexts = zip(*use.QUESTIONS, strict=True)
    results = jf.answer(folder, list(questions), list(contexts))
    unanswered = jf.answer(folder, list(questions), list(contexts), null_threshold=-1e9)
    for best, null, golden in zip(results, unanswered, GOLDEN[family]["spans"], strict=True):
        text, score, start, end, null_score = golden
        assert (best.text, best.start, best.end) == (text, start, end)
        np.testing.assert_allclose([best.score, null.score], [score, null_score], rtol=1e-4)


@pytest.mark.default_cases(1)
@pytest.mark.parametrize("family", use.FAMILIES)
def test_sentence_embedding_folders_are_obeyed_and_exported(family, tmp_path):
    folder = use.folder(family, "encoder", tmp_path / "published")
    bert_use.pooling(folder, "cls_token", normalize=True, max_seq_length=use.CUT)
    if family != "distilbert":
        name = f"sentence_{family}_config.json"
        (folder / "sentence_bert_config.json").rename(folder / name)
    vectors = jf.embed(folder, use.TEXTS)
    np.testing.assert_allclose(vectors, GOLDEN[family]["unit_vectors"], atol=1e-4)
    jf.save_pretrained(*jf.from_pretrained(folder), tmp_path / "exported", tokenizer=folder)
    np.testing.assert_array_equal(jf.embed(tmp_path / "exported", use.TEXTS), vectors)


@pytest.mark.parametrize("family", use.FAMILIES)
def test_vectors_are_the_mean_of_transformers_states(family, tmp_path):
    vectors = jf.embed(use.folder(family, "encoder", tmp_path), use.TEXTS)
    np.testing.assert_allclose(vectors, GOLDEN[family]["vectors"], atol=1e-4)
