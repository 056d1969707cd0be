import gzip
import json

import numpy as np
import pytest

from jaxformers.data import BundledHelp, BundledHelpPages
from jaxformers.data.text.labelled_texts import Labels
from jaxformers.data.text.movies import BundledMovies
from jaxformers.data.text.text_files import CsvTexts, JsonlTexts, TsvTexts
from jaxformers.errors import ConfigError, DataError

MOODS = Labels(2, ("bad", "good"))
NUMBER = Labels(1)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        content = content.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def message(source, labels, kind=DataError):
    with pytest.raises(kind) as error:
        source.open(labels)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------------- tab-separated columns


@pytest.mark.parametrize("name", ["own.tsv", "own.tsv.gz"])
def test_tsv_texts_take_labels_by_name_and_by_number(write, name):
    path = write(name, '"quoted\tgood\r\n\nzwei ü\t0\nthree\t1\n')
    texts = TsvTexts(path).open(MOODS)
    assert texts.texts == ['"quoted', "zwei ü", "three"] and texts.pairs is None
    assert texts.labels.tolist() == [1, 0, 1] and texts.labels.dtype == np.int32
    assert texts.names == ["0", "1", "2"]


def test_tsv_columns_are_numbers_or_names_of_the_header(write):
    path = write("own.tsv", "label\tfirst\tsecond\ngood\ta\tb\nbad\tc\td\n")
    by_name = TsvTexts(path, "first", "second", "label", header=True).open(MOODS)
    by_number = TsvTexts(path, 1, 2, 0, header=True).open(MOODS)
    assert (by_name.texts, by_name.pairs) == (["a", "c"], ["b", "d"])
    assert by_name.fingerprint == by_number.fingerprint
    assert "no column 'third'; it has label, first, second" in message(
        TsvTexts(path, "third", header=True), MOODS
    )
    assert "no column 7; it has 0 to 2" in message(TsvTexts(path, 7), MOODS)
    assert "set header" in message(TsvTexts(path, "first"), MOODS)


def test_names_that_are_numbers_are_names_in_every_format(write):
    stars = Labels(5, ("5", "4", "3", "2", "1"))
    rows = [("bad", 1), ("good", 5), ("so so", 3)]
    tsv = write("own.tsv", "".join(f"{text}\t{star}\n" for text, star in rows))
    lines = [json.dumps({"text": text, "label": star}) for text, star in rows]
    jsonl = write("own.jsonl", "\n".join(lines))
    for texts in (TsvTexts(tsv).open(stars), JsonlTexts(jsonl).open(stars)):
        assert texts.labels.tolist() == [4, 0, 2]


@pytest.mark.parametrize("value", [None, 0.5, True])
def test_what_is_neither_text_nor_number_is_not_the_class_none(value):
    with pytest.raises(DataError, match="is not one of"):
        Labels(2, ("None", "Some")).read(value, "own.jsonl, line 1")


def test_tsv_numbers_are_labels_of_a_regression(write):
    texts = TsvTexts(write("own.tsv", "a\t-0.5\nb\t1e1\n")).open(NUMBER)
    assert texts.labels.tolist() == [-0.5, 10.0] and texts.labels.dtype == np.float32


def test_a_test_set_may_have_no_labels(write):
    texts = TsvTexts(write("own.tsv", "a\tb\n"), 0, 1, None).open(MOODS)
    assert texts.labels is None and texts.pairs == ["b"]


def test_a_line_with_other_columns_is_named(write):
    path = write("own.tsv", "a\t1\nb\t0\nc\td\t1\n")
    assert message(TsvTexts(path), MOODS) == (
        f"{path}, line 3: 3 tab-separated column(s), but the first line has 2"
    )
    path = write("own.tsv", "a\t1\nb\n")
    assert "line 2: 1 tab-separated column(s)" in message(TsvTexts(path), MOODS)


@pytest.mark.parametrize("label", ["2", "-1", "fine", "0.5", "nan", "", "1e400"])
def test_a_label_that_is_none_of_the_classes_is_named(write, label):
    path = write("own.tsv", f"a\t1\nb\t{label}\n")
    assert f"{path}, line 2: label {label!r} is not one of bad, good" == message(
        TsvTexts(path), MOODS
    )
    assert "is not one of 0 to 1; set --task.model.labels or" in message(TsvTexts(path), Labels(2))


@pytest.mark.parametrize("label", ["good", "nan", "inf", ""])
def test_a_label_of_a_regression_that_is_no_number_is_named(write, label):
    path = write("own.tsv", f"a\t1\nb\t{label}\n")
    assert f"{path}, line 2: label {label!r} is no number" == message(TsvTexts(path), NUMBER)


def test_an_empty_or_unnamed_file_is_refused(write):
    assert "is empty" in message(TsvTexts(write("own.tsv", "")), MOODS)
    assert "blank lines only" in message(JsonlTexts(write("own.jsonl", "\n\n")), MOODS)
    assert "set the data's path" in message(TsvTexts(), MOODS)
    path = write("own.tsv", "text\tlabel\n")
    assert message(TsvTexts(path, header=True), MOODS) == f"{path} holds no example"


# ---------------------------------------------------------------------- JSON lines


def test_json_lines_hold_texts_pairs_and_labels(write):
    rows = [{"text": "a\tb", "other": "x", "label": "good"}, {"text": "c", "other": "", "label": 0}]
    path = write("own.jsonl", "\n".join(map(json.dumps, rows)))
    texts = JsonlTexts(path, pair="other").open(MOODS)
    assert (texts.texts, texts.pairs) == (["a\tb", "c"], ["x", ""])
    assert texts.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", "no JSON object"),
        ("{'text': 1}", "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"text": 3, "label": 1}', "'text' holds no text; the keys are text, label"),
        ('{"txt": "a", "label": 1}', "'text' holds no text; the keys are txt, label"),
        ('{"text": "a"}', "there is no 'label'; the keys are text"),
        ('{"text": "a", "label": true}', "label True is not one of bad, good"),
        ('{"text": "a", "label": 2}', "label 2 is not one of bad, good"),
        ('{"text": "a", "label": [1]}', "label [1] is not one of bad, good"),
    ],
)
def test_a_json_line_that_cannot_be_used_is_named(write, line, problem):
    path = write("own.jsonl", f'{{"text": "a", "label": 1}}\n{line}\n')
    assert message(JsonlTexts(path), MOODS) == f"{path}, line 2: {problem}"


# ---------------------------------------------------------------------- the bundled sentences

SIGNS = BundledMovies().own


def test_half_a_surrogate_pair_in_json_is_replaced(write):
    line = r'{"text": "a \ud83d b \ud83d\ude00", "label": "good"}'
    texts = JsonlTexts(write("own.jsonl", line + "\n")).open(MOODS)
    assert texts.texts == ["a \ufffd b \U0001f600"]


def test_the_bundled_sentences_split_as_stated():
    for kind, counts in (("sign", (8505, 1013, 1050)), ("rating", (8535, 1016, 1054))):
        sets = [BundledMovies(split, kind) for split in ("train", "dev", "test")]
        texts = [source.open(source.own) for source in sets]
        assert tuple(map(len, texts)) == counts
        sentences = [set(labelled.texts) for labelled in texts]
        assert not sentences[0] & sentences[1] and not (sentences[0] | sentences[1]) & sentences[2]


def test_the_sign_is_that_of_the_rating():
    signs = BundledMovies("dev").open(SIGNS)
    ratings = BundledMovies("dev", "rating").open(NUMBER)
    rating_of = dict(zip(ratings.texts, ratings.labels, strict=True))
    assert [rating_of[text] > 0 for text in signs.texts] == (signs.labels == 1).tolist()
    assert 0.48 < signs.labels.mean() < 0.52 and np.abs(ratings.labels).max() <= 4


def test_a_limit_takes_sentences_of_both_signs():
    texts = BundledMovies(limit=40).open(SIGNS)
    assert len(texts) == 40 and 10 < texts.labels.sum() < 30


def test_the_bundled_help_is_split_by_page_and_pretraining_reads_no_test_line():
    own = BundledHelp().own
    lines = [BundledHelp(split).open(own) for split in ("train", "dev", "test")]
    assert [len(texts) for texts in lines] == [13_982, 1_954, 1_431]
    assert np.bincount(lines[2].labels).tolist() == [345, 333, 47, 51, 98, 74, 39, 444]
    documents = [BundledHelpPages(split).open() for split in ("train", "dev", "test")]
    pages = [{line for page in pages for line in page} for pages in documents]
    for texts, page_lines in zip(lines, pages, strict=True):
        assert set(texts.texts) <= page_lines
    assert not pages[0] & (pages[1] | pages[2]) and not pages[1] & pages[2]
    turned = Labels(8, tuple(reversed(own.names)))
    theirs = BundledHelp("test", limit=100).open(turned).labels
    assert (7 - theirs == BundledHelp("test", limit=100).open(own).labels).all()
    assert len(BundledHelp(min_words=30, limit=20).open(own)) == 20


def test_classes_follow_the_order_of_a_model_that_has_them():
    turned = Labels(2, ("POSITIVE", "negative"))
    assert BundledMovies().classes(turned) == turned
    assert BundledMovies().classes(Labels(2, ("LABEL_0", "LABEL_1"))) == SIGNS
    assert BundledMovies().classes(Labels(3)) == SIGNS
    ours, theirs = (BundledMovies("dev").open(labels).labels for labels in (SIGNS, turned))
    assert (ours == 1 - theirs).all()
    assert "set --task.model.labels" in message(BundledMovies(), Labels(3), ConfigError)


def test_the_fingerprint_tells_labels_and_texts_apart(write):
    first = TsvTexts(write("a.tsv", "a\t1\n")).open(MOODS).fingerprint["content"]
    assert first == TsvTexts(write("b.tsv", "a\tgood\n")).open(MOODS).fingerprint["content"]
    assert first != TsvTexts(write("c.tsv", "a\t0\n")).open(MOODS).fingerprint["content"]
    assert first != TsvTexts(write("d.tsv", "b\t1\n")).open(MOODS).fingerprint["content"]


# ---------------------------------------------------------------- CSV


def test_csv_is_read_with_its_quotes_line_breaks_and_columns(write):
    content = 'label,text\r\ngood,"a ""fine"", long\r\nfilm"\r\n\r\nbad,plain\r\n'
    texts = CsvTexts(write("own.csv", content)).open(MOODS)
    assert texts.texts == ['a "fine", long\nfilm', "plain"]
    assert [MOODS.names[label] for label in texts.labels] == ["good", "bad"]
    semicolons = write("own.csv", '\ufeff"a;b";good;c\nd;bad;e\n')
    config = CsvTexts(semicolons, 0, 2, 1, header=False, separator=";")
    texts = config.open(MOODS)
    assert texts.texts == ["a;b", "d"] and texts.pairs == ["c", "e"]


@pytest.mark.parametrize(
    ("content", "options", "problem"),
    [
        ("text,label\na,good,b\n", {}, "line 2: 3 value(s), but the first line has 2"),
        ('text,label\n"a\nb",good\nc\n', {}, "line 4: 1 value(s), but"),
        ('text,label\na,good\n"b,bad\n', {}, "line 3: no CSV (unexpected end of data)"),
        ("text,label\na,good\n", {"text_column": "body"}, "no column 'body'; it has text, label"),
        (",\n,\n", {}, "holds no example"),
        ("text,label\n", {}, "holds no example"),
    ],
)
def test_a_csv_that_cannot_be_read_is_refused_by_its_line(write, content, options, problem):
    assert problem in message(CsvTexts(write("own.csv", content), **options), MOODS)


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n"])
def test_a_separator_is_one_character(separator):
    with pytest.raises(ConfigError, match="one character"):
        CsvTexts("own.csv", separator=separator)
