"""Masked words, classes, answers and vectors: equal to Hugging Face's, whatever the batch."""

import json
import os
import shutil
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))

import bert_use as use
import marian_cases
import marian_folders
from etils import epath

import jaxformers as jf
from jaxformers import api
from jaxformers.data import BundledMovies
from jaxformers.errors import ConfigError, DataError, UserError, WeightsError
from jaxformers.pretrained import save_pretrained
from jaxformers.pretrained.formats import hub
from jaxformers.tasks import SequenceClassification
from jaxformers.training import run_directory

FIXTURES = Path(__file__).resolve().parent / "fixtures"
GOLDEN = json.loads(use.GOLDEN.read_text())
MINILM = os.environ.get("JAXFORMERS_MINILM")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("use")
    return {name: use.folder(name, root / name) for name in use.FOLDERS}


@pytest.fixture(scope="module", params=["added_tokens.json", "tokenizer.json"])
def added(request, tmp_path_factory):
    """Folders whose tokenizer has added tokens and whose embedding has rows to spare."""
    path = tmp_path_factory.mktemp("added")
    names = ("encoder", "words")
    folders = {name: use.folder_with_added_tokens(name, path / name) for name in names}
    for folder in folders.values() if request.param == "tokenizer.json" else ():
        tokenizer = jf.load_text(folder)
        for name in ("vocab.txt", "added_tokens.json", "tokenizer_config.json"):
            (folder / name).unlink()
        tokenizer.save(folder)
    return folders


# ---------------------------------------------------------------- equal to the reference


def same_words(actual, expected):
    assert [len(row) for row in actual] == [len(row) for row in expected]
    for ours, theirs in zip(chain(*actual), chain(*expected), strict=True):
        assert [token for token, _ in ours] == [token for token, _ in theirs]
        np.testing.assert_allclose([p for _, p in ours], [p for _, p in theirs], atol=2e-5)


def test_masked_words_are_those_of_hugging_faces_pipeline(folders):
    same_words(jf.fill_mask(folders["words"], use.MASKED, top=3), GOLDEN["words"])


def test_added_tokens_and_spare_rows_of_the_embedding_are_those_of_hugging_face(added):
    golden = GOLDEN["added"]
    assert jf.load_text(added["encoder"]).encode(use.ADDED_TEXTS) == golden["ids"]
    assert jf.load_text(added["encoder"]).encode(use.ADDED_TEXTS[0]) == golden["ids"][:1]
    vectors = jf.embed(added["encoder"], use.ADDED_TEXTS)
    np.testing.assert_allclose(vectors, golden["vectors"], atol=2e-5)
    size = len(use.VOCABULARY) + 10
    same_words(jf.fill_mask(added["words"], use.ADDED_MASKED, top=size), [golden["words"]])


def test_a_folder_of_a_tokenizer_alone_is_loaded(added, tmp_path):
    tokenizer = jf.load_text(added["encoder"])
    tokenizer.save(tmp_path)
    assert jf.load_text(tmp_path).encode("a <user>") == tokenizer.encode("a <user>")


@pytest.mark.parametrize("name", ["classes", "number"])
def test_classes_and_numbers_are_those_of_hugging_faces_pipeline(folders, name):
    texts = [*use.TEXTS, *use.PAIRS]
    predictions = jf.classify(folders[name], texts)
    for text, (label, value), (their_label, theirs) in zip(
        texts, predictions, GOLDEN[name], strict=True
    ):
        assert label == their_label, text
        assert value == pytest.approx(theirs, abs=2e-5), text


def test_labels_that_do_not_exclude_each_other_have_probabilities_of_their_own(folders, tmp_path):
    folder = shutil.copytree(folders["classes"], tmp_path / "multi")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"problem_type": "multi_label_classification"})
    )
    model, variables = jf.from_pretrained(folder)
    tokenizer = api.load_text(folder)
    (token_ids,) = tokenizer.encode([use.TEXTS[0]])
    ids = np.array([[tokenizer.cls_id, *token_ids, tokenizer.sep_id]])
    logits = np.asarray(model.apply(variables, ids)[0])
    ((label, value),) = jf.classify(folder, [use.TEXTS[0]])
    assert label == model.config.label_names[logits.argmax()]
    assert value == pytest.approx(1 / (1 + np.exp(-logits.max())), abs=1e-5)
    save_pretrained(model, variables, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["problem_type"] == "multi_label_classification"


def test_answers_are_the_best_spans_of_hugging_faces_logits(folders):
    answers = jf.answer(folders["spans"], *zip(*use.QUESTIONS, strict=True))
    for ours, (text, score, start, end, _) in zip(answers, GOLDEN["spans"], strict=True):
        assert (ours.text, ours.start, ours.end) == (text, start, end)
        assert ours.score == pytest.approx(score, abs=5e-5)


def test_no_answer_wins_where_its_score_exceeds_the_best_by_more_than_the_threshold(folders):
    odds = [null - score for _, score, _, _, null in GOLDEN["spans"]]
    threshold = sum(sorted(odds)[:2]) / 2  # between the least and the next
    questions, contexts = zip(*use.QUESTIONS, strict=True)
    answers = jf.answer(folders["spans"], questions, contexts, null_threshold=threshold)
    assert [answer.text == "" for answer in answers] == [odd > threshold for odd in odds]


@pytest.mark.parametrize(
    "mode", ["mean", "cls", "max", "mean_sqrt_len", "weightedmean", "lasttoken"]
)
def test_vectors_are_hugging_faces_states_pooled(folders, mode):
    vectors = jf.embed(folders["encoder"], use.TEXTS, pooling=mode)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, GOLDEN["vectors"][mode], atol=5e-5)


def test_a_folder_says_how_its_vectors_are_made(folders, tmp_path):
    folder = shutil.copytree(folders["encoder"], tmp_path / "sentences")
    use.pooling(folder, "mean_tokens", normalize=True, max_seq_length=6)
    vectors = jf.embed(folder, use.TEXTS)
    np.testing.assert_allclose(vectors, GOLDEN["vectors"]["cut"], atol=2e-5)
    longer = jf.embed(folder, use.TEXTS, normalize=False)
    assert not np.allclose(np.linalg.norm(longer, axis=1), 1)


def test_vectors_of_several_modes_are_joined_in_sentence_transformers_order(folders, tmp_path):
    folder = shutil.copytree(folders["encoder"], tmp_path / "sentences")
    use.pooling(folder, "lasttoken", "mean_tokens", "cls_token", "max_tokens")
    modes = ("cls", "max", "mean", "lasttoken")
    expected = np.concatenate([GOLDEN["vectors"][mode] for mode in modes], axis=1)
    np.testing.assert_allclose(jf.embed(folder, use.TEXTS), expected, atol=5e-5)


@pytest.mark.skipif(MINILM is None, reason="JAXFORMERS_MINILM names no folder")
def test_vectors_of_all_minilm_are_pytorchs():
    """JAXFORMERS_MINILM names a folder with all-MiniLM-L6-v2; torch and transformers are needed."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    texts = varied_texts()
    vectors = jf.embed(MINILM, texts).astype(np.float64)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    model = transformers.BertModel.from_pretrained(MINILM).eval()
    for text, ours in zip(texts, vectors, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            theirs = model(**inputs).last_hidden_state[0].mean(0).numpy().astype(np.float64)
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 1 - 1e-5, text
        assert np.linalg.norm(ours) == pytest.approx(1, abs=1e-5)


def varied_texts() -> list[str]:
    """200 texts: of every length, emoji, CJK, accents, right to left, very long words, empty."""
    import varied_lines

    special = ["", " ", "x" * 99, "x" * 101, "y" * 5000, "word " * 600, "\U0001f600" * 9, "\u200b"]
    # Special tokens that are written out are plain text to us. The capital sigma at a word's end
    # has a small letter of its own in Google's code and in ours, but not in Hugging Face's.
    excluded = ("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "\u039f\u0394\u039f\u03a3")
    words = [word for word in varied_lines.WORDS if word not in excluded]
    words = [*words, "\U0001f469\u200d\U0001f680", "\u5929\u6c14", "\uc548\ub155", "\u0645\u0631"]
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(words, rng.randint(1, 90))) for _ in range(200 - len(special))]
    return special + texts


# ---------------------------------------------------------------- any batch


def test_a_batch_changes_no_result_and_keeps_the_order(folders):
    texts = [text[:n] for n in (40, 7, 1, 25, 90) for text in use.TEXTS]
    together = jf.embed(folders["encoder"], texts)
    alone = np.concatenate([jf.embed(folders["encoder"], [text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    texts = [text for text in texts if len(text) < 30]
    together = jf.classify(folders["classes"], texts)
    for text, (label, share) in zip(texts, together, strict=True):
        ((its_label, its_share),) = jf.classify(folders["classes"], text)
        assert (label, share) == (its_label, pytest.approx(its_share, abs=1e-5))


def test_more_masked_places_than_are_computed_at_once(folders):
    texts = ["[MASK] " * 30, "a", "", "the [MASK] is"] * 4
    predictions = jf.fill_mask(folders["words"], texts, top=1)
    assert [len(row) for row in predictions] == [30, 0, 0, 1] * 4
    expected = [jf.fill_mask(folders["words"], [text], top=1)[0] for text in texts[:4]]
    same_words(predictions, expected * 4)


def test_answers_from_contexts_of_any_length_keep_their_order(folders):
    short, long = "The baker left at noon.", "The river bank is good. " * 20 + "Who filmed?"
    questions, contexts = ["Who?", "Where is it?"] * 6, [short, long, short] * 4
    answers = jf.answer(folders["spans"], questions, contexts)
    for question, context, answer in zip(questions, contexts, answers, strict=True):
        (alone,) = jf.answer(folders["spans"], question, context)
        assert answer[:1] + answer[2:] == alone[:1] + alone[2:]
        assert answer.score == pytest.approx(alone.score, abs=1e-4)
        assert context[answer.start : answer.end] == answer.text


def test_one_context_serves_many_questions(folders):
    answers = jf.answer(folders["spans"], ["Who left?", "Who?"], "The baker left at noon.")
    assert len(answers) == 2
    assert answers[0] == jf.answer(folders["spans"], ["Who left?"], ["The baker left at noon."])[0]


def test_nothing_in_nothing_out(folders):
    assert jf.fill_mask(folders["words"], []) == []
    assert jf.classify(folders["classes"], []) == []
    assert jf.answer(folders["spans"], [], []) == []
    assert jf.embed(folders["encoder"], []).shape == (0, 24)


def test_few_shapes_are_compiled_for_many_texts(folders):
    from jaxformers.tasks.text import embedding

    texts = ["a " * (n % 14) for n in range(150)]
    jf.embed(folders["encoder"], texts)
    model, _ = jf.from_pretrained(folders["encoder"])
    program = embedding._program(model, ("mean",), (), False)
    before = program._cache_size()
    jf.embed(folders["encoder"], [f"the {text}" for text in texts[:140]])
    assert program._cache_size() == before


@pytest.mark.parametrize("name", use.FOLDERS)
def test_any_head_embeds_by_its_encoder(folders, name):
    vectors = jf.embed(folders[name], ["the baker"])
    assert vectors.shape == (1, 24) and np.isfinite(vectors).all()


def test_a_run_of_ours_is_used_like_published_weights(folders, tmp_path):
    model, variables = jf.from_pretrained(folders["classes"])
    tokenizer, folder = jf.load_text(folders["classes"]), epath.Path(tmp_path)
    task = SequenceClassification(model.config, BundledMovies(), length=use.POSITIONS)
    run_directory.write_experiment(folder, jf.Experiment("run", task, steps=1), main=True)
    run_directory.export(folder, model, variables, tokenizer, 1)
    tokenizer.save(run_directory.tokenizer_folder(folder))
    assert jf.classify(folder, use.TEXTS) == jf.classify(folders["classes"], use.TEXTS)
    expected = jf.embed(folders["classes"], use.TEXTS)
    np.testing.assert_array_equal(jf.embed(folder, use.TEXTS), expected)


def test_a_hubs_name_serves_as_a_path(folders, monkeypatch):
    monkeypatch.setattr(hub, "fetch", {"some/encoder": epath.Path(folders["encoder"])}.get)
    expected = jf.embed(folders["encoder"], use.TEXTS)
    np.testing.assert_array_equal(jf.embed("some/encoder", use.TEXTS), expected)


# ---------------------------------------------------------------- mistakes


def mistake(call, *args, kind=UserError, **options) -> str:
    with pytest.raises(kind) as raised:
        call(*args, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_text_with_more_tokens_than_positions_is_named(folders):
    long = "a " * 39
    message = "text 2 has 41 tokens, but the model has 40 positions"
    assert message in mistake(jf.fill_mask, folders["words"], ["[MASK]", long], kind=DataError)
    assert message in mistake(jf.classify, folders["classes"], ["a", long], kind=DataError)
    pair = ("a " * 30, "a " * 8)
    assert "text 1 has 41 tokens" in mistake(jf.classify, folders["classes"], [pair])
    jf.classify(folders["classes"], ["a " * 38, ("a " * 30, "a " * 7)])


def test_a_text_that_is_cut_is_cut_as_in_training(folders):
    long, cut = "good " + "a " * 60, "good " + "a " * 37
    (label, share), (cut_label, cut_share) = jf.classify(
        folders["classes"], [long, cut], truncate=True
    )
    assert (label, share) == (cut_label, pytest.approx(cut_share, abs=1e-5))


@pytest.mark.parametrize(
    ("call", "name", "texts", "message"),
    [
        (jf.fill_mask, "encoder", [["a"]], "holds a Bert without a masked-word head; fill_mask"),
        (jf.classify, "words", [["a"]], "holds a BertForPreTraining without a classifier"),
        (jf.answer, "classes", [["a"], ["b"]], "answer needs a BertForSpanExtraction"),
        (jf.translate, "encoder", [["a"]], "translate needs a Transformer"),
    ],
)
def test_a_missing_head_is_named_with_what_there_is(folders, call, name, texts, message):
    assert message in mistake(call, folders[name], *texts, kind=WeightsError)


def test_a_model_of_the_next_sentence_alone_fills_no_masks(tmp_path):
    folder = use.folder("words", tmp_path, architectures=["BertForNextSentencePrediction"])
    message = "holds a BertForPreTraining without a masked-word head"
    assert message in mistake(jf.fill_mask, folder, ["a"], kind=WeightsError)


def test_a_vocabulary_of_another_size_is_refused_with_both_sizes(tmp_path):
    folder = use.folder("words", tmp_path)
    (folder / "vocab.txt").write_text("\n".join([*use.VOCABULARY, "more"]) + "\n")
    size = len(use.VOCABULARY)
    message = f"has {size + 1} tokens, but its weights have {size};"
    assert message in mistake(jf.fill_mask, folder, ["a"], kind=WeightsError)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    folder = use.folder("encoder", tmp_path)
    (folder / "vocab.txt").unlink()
    assert "no tokenizer in" in mistake(jf.embed, folder, ["a"])


@pytest.mark.parametrize(
    ("call", "name", "texts", "options", "message"),
    [
        (jf.embed, "encoder", [["a"]], {"pooling": "average"}, "choose cls, max, mean,"),
        (jf.fill_mask, "words", [["a"]], {"top": 0}, "top is 0; it is a whole number"),
        (jf.fill_mask, "words", [["a"]], {"top": 2.5}, "top is 2.5; it is a whole number"),
        (jf.answer, "spans", [["a"], ["a"]], {"longest": 0}, "longest is 0"),
        (jf.answer, "spans", [["a", "b"], ["a"]], {}, "2 questions but 1 contexts"),
        (jf.classify, "classes", [[("a", "b", "c")]], {}, "text 1 is neither a text nor a pair"),
        (jf.classify, "classes", [["a", None]], {}, "text 2 is neither a text nor a pair"),
        (jf.embed, "encoder", [["a", None]], {}, "text 2 is None, not a text"),
        (jf.embed, "encoder", [[("a", "b")]], {}, "text 1 is ('a', 'b'), not a text"),
        (jf.embed, "encoder", [{"a": 1}], {}, "expected a text or a list of texts, not a dict"),
        (jf.fill_mask, "words", [{"a": 1}], {}, "expected a text or a list of texts, not a dict"),
        (jf.classify, "classes", [{"a": 1}], {}, "texts or pairs of texts, not a dict"),
        (jf.answer, "spans", [{"a": 1}, "a"], {}, "expected a text or a list of texts"),
        (jf.answer, "spans", ["a", {"a": 1}], {}, "expected a text or a list of texts"),
        (jf.embed, "encoder", [None], {}, "expected a text or a list of texts, not a NoneType"),
    ],
)
def test_what_cannot_be_used_is_one_line(folders, call, name, texts, options, message):
    assert message in mistake(call, folders[name], *texts, **options)


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A random MarianMT with the tokenizer of the fixtures."""
    folder = shutil.copytree(FIXTURES / "marian_tokenizer", tmp_path_factory.mktemp("m") / "marian")
    size = len(json.loads((folder / "vocab.json").read_text()))
    config = marian_cases.config(vocab_size=size, encoder_layers=1)
    return marian_folders.write(folder, config, marian_cases.weights(config, 0))


def test_half_a_surrogate_pair_is_translated_as_the_replacement_character(translator):
    output = jf.translate(translator, "Open \ud83d it", beams=1)
    assert output == jf.translate(translator, ["Open \ufffd it"], beams=1) and len(output) == 1


@pytest.mark.parametrize(
    ("sentences", "options", "message"),
    [
        ({"a": 1}, {}, "expected a text or a list of texts, not a dict"),
        (b"a", {}, "expected a text or a list of texts, not a bytes"),
        ("a", {"alpha": float("nan")}, "alpha is nan; it is from -10 to 10"),
        ("a", {"alpha": 1e6}, "alpha is 1000000.0; it is"),
        ("a", {"beams": 1000}, "beams is 1000; it is a whole number, from 1 to 256"),
        ("a", {"beams": 0}, "beams is 0; it is"),
        ("a", {"beams": 2.5}, "beams is 2.5; it is"),
        ("a", {"alpha": "high"}, "alpha is 'high'; it is"),
    ],
)
def test_what_cannot_be_translated_is_one_line(translator, sentences, options, message):
    assert message in mistake(jf.translate, translator, sentences, **options)


def test_a_model_of_one_segment_takes_no_pairs(tmp_path):
    folder = use.folder("classes", tmp_path, type_vocab_size=1)
    jf.classify(folder, ["a"])
    assert "has 1 segment, and the tokenizer puts the second" in mistake(
        jf.classify, folder, [("a", "b")], kind=ConfigError
    )
