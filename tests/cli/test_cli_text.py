"""The verbs on standard input: a line out for each line in, and mistakes by their line."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "fixtures"))

import bert_use as use
import encoder_use
import tag_use
import text_folders

import jaxformers as jf
from jaxformers.cli import command


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("verbs")
    return {name: str(use.folder(name, root / name)) for name in use.FOLDERS}


@pytest.fixture
def run_verb(capfd, monkeypatch):
    """Runs a verb on some text: its status, the lines of its output, and its error."""

    def run(text: str | bytes, *words: str) -> tuple[int, list[str], str]:
        read, write = os.pipe()
        os.write(write, text.encode() if isinstance(text, str) else text)
        os.close(write)
        with os.fdopen(read) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            status = command.main(words)
        out, err = capfd.readouterr()
        assert err.count("\n") == (status == 2) and (not err or err.startswith("jaxformers: "))
        return status, out.split("\n")[:-1], err

    return run


def test_fill_mask_prints_words_and_probabilities_places_divided_by_tabs(run_verb, folders):
    text = f"{use.MASKED[0]}\n\n{use.MASKED[2]}\n"
    status, lines, _ = run_verb(text, "fill-mask", folders["words"], "--top", "2")
    assert status == 0 and [line.count("\t") for line in lines] == [0, 0, 2]
    expected = jf.fill_mask(folders["words"], [use.MASKED[0]], top=2)[0][0]
    assert lines[0] == " ".join(f"{token} {share:.4f}" for token, share in expected)
    assert lines[1] == ""


def test_tag_prints_five_columns_for_each_entity(run_verb, tmp_path):
    folder, text = str(tag_use.folder("types", tmp_path)), "A good\tfilm."
    status, lines, _ = run_verb(f"{text}\n\nbad\n", "tag", folder, "--aggregation", "max")
    first, second = jf.tag(folder, [text, "bad"], aggregation="max")
    rows = [
        [f"{' '.join(e.text.split())}\t{e.label}\t{e.score:.4f}\t{e.start}\t{e.end}" for e in row]
        for row in (first, second)
    ]
    assert first and (status, lines) == (0, ["\t".join(rows[0]), "", "\t".join(rows[1])])


def test_classify_reads_texts_and_pairs(run_verb, folders):
    text = "A good film.\n\nbad\tThe baker left.\n"
    status, lines, _ = run_verb(text, "classify", folders["classes"])
    inputs = ["A good film.", ("bad", "The baker left.")]
    first, second = jf.classify(folders["classes"], inputs)
    expected = [f"{label}\t{share:.4f}" for label, share in (first, second)]
    assert (status, lines) == (0, [expected[0], "", expected[1]])


def test_answer_prints_text_score_and_place(run_verb, folders):
    question, context = use.QUESTIONS[0]
    status, lines, _ = run_verb(f"{question}\t{context}\n", "answer", folders["spans"])
    ((text, score, start, end),) = jf.answer(folders["spans"], [question], [context])
    assert (status, lines) == (0, [f"{text}\t{score:.4f}\t{start}\t{end}"])
    words = ("answer", folders["spans"], "--null-threshold", "-1000")
    assert run_verb(f"{question}\t{context}\n", *words)[1][0].startswith("\t")


def test_embed_prints_the_very_numbers_of_each_line_empty_ones_too(run_verb, folders):
    status, lines, _ = run_verb("the baker\n\nbad\n", "embed", folders["encoder"], "--normalize")
    vectors = np.array([line.split("\t") for line in lines]).astype(np.float32)
    expected = jf.embed(folders["encoder"], ["the baker", "", "bad"], normalize=True)
    assert status == 0
    np.testing.assert_array_equal(vectors, expected)


def test_embed_saves_an_array(run_verb, folders, tmp_path):
    path = str(tmp_path / "vectors.npy")
    text = "".join(f"{line}\n" for line in ["the baker", "", "bad"] * 3)
    words = ("embed", folders["encoder"], "--batch", "2", "--pooling", "max", "--output", path)
    status, lines, _ = run_verb(text, *words)
    assert (status, lines) == (0, [f"wrote {path}: 9 vectors of 24"])
    expected = jf.embed(folders["encoder"], ["the baker", "", "bad"] * 3, pooling="max")
    np.testing.assert_allclose(np.load(path), expected, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.npy"]
    assert run_verb("", *words)[0] == 0 and np.load(path).shape == (0, 24)


def test_what_fails_leaves_no_array(run_verb, folders, tmp_path):
    words = ("embed", folders["encoder"], "--output", str(tmp_path / "vectors.npy"))
    status, _, err = run_verb(b"good\nbad \xff\n", *words)
    assert status == 2 and "line 2: not UTF-8" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "name", "text", "before", "wrong"),
    [
        ("fill-mask", "words", "[MASK]\n\nno mask\n[MASK]\n", 2, "line 3 has no [MASK]"),
        ("fill-mask", "words", "[MASK]\n" + "a " * 39 + "[MASK]", 1, "line 2 has 42 tokens, but"),
        ("classify", "classes", "a\na\tb\tc\n", 1, "line 2 has 3 columns: give a text, or two"),
        ("classify", "classes", "\n\n" + "a " * 39, 2, "line 3 has 41 tokens"),
        ("answer", "spans", "a\tb\n\nwho\n", 2, "line 3 has 1 column: give a question, a tab"),
        ("answer", "spans", "a\tb\tc\n", 0, "line 1 has 3 columns"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_after_those_before_it(
    run_verb, folders, verb, name, text, before, wrong
):
    status, lines, err = run_verb(text, verb, folders[name])
    assert (status, len(lines)) == (2, before)
    assert f"standard input, {wrong}" in err


def test_a_roberta_takes_its_own_mask(run_verb, tmp_path):
    folder = str(encoder_use.folder("roberta", "words", tmp_path))
    status, lines, _ = run_verb("The <mask> of the <mask>.\n", "fill-mask", folder, "--top", "2")
    assert status == 0 and len(lines[0].split("\t")) == 2
    status, _, err = run_verb("The [MASK].\n", "fill-mask", folder)
    assert status == 2 and "line 1 has no <mask>: put it where a word is wanted" in err


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["fill-mask", "encoder"], "holds a Bert without a masked-word head; fill_mask needs"),
        (["classify", "nowhere"], "there is no folder nowhere"),
        (["fill-mask", "words", "--top", "0"], "--top: 0 is not at least 1"),
        (["fill-mask", "words", "--tpo", "1"], "did you mean --top?"),
        (["answer", "spans", "--null-treshold", "0"], "did you mean --null-threshold?"),
        (["embed", "encoder", "--pooling", "meen"], "--pooling: invalid choice: 'meen'"),
        (["embed", "encoder", "--output", "a.txt"], "a.txt does not end in .npy"),
        (["embed", "encoder", "--output", "no/such/a.npy"], "--output: there is no folder no/such"),
        (["fil-mask", "words"], "unknown verb fil-mask; did you mean fill-mask?"),
        (["fill_mask", "words"], "unknown verb fill_mask; did you mean fill-mask?"),
        (["classify"], "RUN is missing"),
    ],
)
def test_a_mistake_is_said_before_a_line_is_read(run_verb, folders, words, wrong):
    status, lines, err = run_verb("", *(folders.get(word, word) for word in words))
    assert (status, lines) == (2, [])
    assert wrong in err


def test_long_lines_are_cut_where_that_is_asked_for(run_verb, folders):
    status, lines, _ = run_verb("a " * 60, "classify", folders["classes"], "--truncate")
    assert status == 0 and len(lines) == 1


def test_translate_prints_n_best_with_scores_and_cuts_or_skips_long_lines(
    run_verb, tmp_path, capfd
):
    folder = str(text_folders.marian(tmp_path / "m", max_position_embeddings=12))
    long = "Click the button " * 9
    status, lines, _ = run_verb("Open\n\n", "translate", folder, "--n-best", "2", "--beams", "3")
    assert status == 0 and [line.count("\t") for line in lines] == [3, 0]
    best = jf.translate(folder, "Open", beams=3, n_best=2)[0]
    assert lines[0] == "\t".join(f"{text}\t{score:.4f}" for text, score in best)
    assert run_verb(f"Open\n{long}\n", "translate", folder)[0] == 2
    status, lines, _ = run_verb(f"Open\n{long}\n", "translate", folder, "--truncate")
    assert status == 0 and lines == jf.translate(folder, ["Open", long], truncate=True)
    options = ("--no-repeat-ngram", "1", "--alpha", "0.2")
    status, lines, _ = run_verb("Open\n", "translate", folder, *options)
    assert lines == jf.translate(folder, ["Open"], no_repeat_ngram=1, alpha=0.2)
    status, lines, err = run_verb("Open\n", "translate", folder, "--alpha", "nan")
    assert status == 2 and "alpha is nan" in err
