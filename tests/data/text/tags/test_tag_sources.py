"""Sources of tagged sentences: what they read, and what they refuse by file and line."""

import gzip
import json

import mocked_tfds
import pytest

from jaxformers.data import BundledEntities, ConllFile, JsonlTags, TfdsTags, TsvTags
from jaxformers.errors import DataError

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
German JJ I-NP I-MISC
British JJ I-NP B-MISC
lamb NN I-NP O


Peter NNP I-NP I-PER
Blackburn NNP I-NP I-PER
"""
WORDS = [["EU", "rejects", "German", "British", "lamb"], ["Peter", "Blackburn"]]
TAGS = [["B-ORG", "O", "B-MISC", "B-MISC", "O"], ["B-PER", "I-PER"]]


def test_columns_of_conll_2003_are_read(tmp_path):
    (tmp_path / "train.txt").write_text(CONLL_2003)
    sentences = ConllFile(str(tmp_path / "train.txt"), scheme="IOB1").open()
    assert (sentences.words, sentences.tags) == (WORDS, TAGS)
    classes = [f"{prefix}-{name}" for name in ("MISC", "ORG", "PER") for prefix in "BI"]
    assert sentences.tag_names == ("O", *classes)
    chunks = ConllFile(str(tmp_path / "train.txt"), scheme="IOB1", tag_column=2).open()
    assert chunks.tags[0] == ["B-NP", "B-VP", "B-NP", "I-NP", "I-NP"]
    speech = ConllFile(str(tmp_path / "train.txt"), scheme="none", tag_column=1).open()
    assert speech.tags[1] == ["NNP", "NNP"] and speech.tag_names == ("JJ", "NN", "NNP", "VBZ")


def test_tabs_gzip_comments_and_carriage_returns(tmp_path):
    content = "# id 1\r\n# is a word\r\n1\tParis\tB-LOC\r\n2\t#\tO\r\n \r\n3\tno\u00a0break\tO"
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(gzip.compress(content.encode()))
    sentences = ConllFile(str(path), word_column=1, comment="# ").open()
    assert sentences.words == [["Paris", "#"], ["no\u00a0break"]]
    assert sentences.tags == [["B-LOC", "O"], ["O"]]


def test_lines_of_words_and_tags(tmp_path):
    (tmp_path / "a.tsv").write_text("EU rejects\tB-ORG O\n\nPeter Blackburn\tB-PER I-PER\n")
    sentences = TsvTags(str(tmp_path / "a.tsv")).open()
    assert sentences.words == [["EU", "rejects"], ["Peter", "Blackburn"]]
    assert sentences.tags == [["B-ORG", "O"], ["B-PER", "I-PER"]]


def test_json_lines_of_names_or_numbers(tmp_path):
    row = json.dumps({"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]})
    (tmp_path / "a.jsonl").write_text(row + '\n\n{"tokens": [], "ner_tags": []}\n')
    assert JsonlTags(str(tmp_path / "a.jsonl")).open().tags == [["B-ORG", "O"]]
    (tmp_path / "b.jsonl").write_text(json.dumps({"w": ["a", "b c"], "t": [2, 0]}))
    source = JsonlTags(str(tmp_path / "b.jsonl"), words="w", tags="t", names=("O", "I-X", "B-X"))
    assert source.open().tags == [["B-X", "O"]]


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        (ConllFile, "a O\nb c O\n", "line 2: 3 columns, but the lines before it have 2"),
        (ConllFile, "a\n", r"line 1: 1 column\(s\), but column 1 \(counted from 0\) is read"),
        (ConllFile, "-DOCSTART- O\n", "holds no sentence"),
        (ConllFile, "a O\n\nb O\nc I-X\n", "line 3: the tag 'I-X' of word 2, 'c'.*valid IOB1"),
        (JsonlTags, "[]", "line 1: no JSON object"),
        (JsonlTags, "[" * 10**5, "line 1: no JSON object"),
        (JsonlTags, '{"tokens": "a"}', "line 1: 'tokens' holds no list; the keys are tokens"),
        (JsonlTags, '{"tokens": [1], "ner_tags": ["O"]}', "something else than texts"),
        (JsonlTags, '{"tokens": ["a"], "ner_tags": [3]}', "3 is no tag .*set the data's names"),
        (JsonlTags, '{"tokens": ["a"], "ner_tags": [null]}', "None is no tag of 'ner_tags'"),
        (JsonlTags, '{"tokens": ["a"], "ner_tags": []}', "line 1: 1 words, but 0 tags"),
        (JsonlTags, '{"tokens": [" "], "ner_tags": ["O"]}', "word 1 or its tag is empty"),
        (TsvTags, "a b\n", r"line 1: 1 tab-separated column\(s\); a line has two"),
        (TsvTags, "a b\tO\n", "line 1: 2 words, but 1 tags"),
        (TsvTags, "", "is empty"),
    ],
)
def test_what_is_malformed_is_named_by_its_line(kind, content, words, tmp_path):
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(DataError, match=words) as error:
        kind(str(path)).open()
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    for kind in (ConllFile, JsonlTags, TsvTags):
        with pytest.raises(DataError, match="there is no file"):
            kind(str(tmp_path / "none")).open()
        with pytest.raises(DataError, match="no file is named"):
            kind().open()


def test_conll_2003_of_tfds(tmp_path):
    import tensorflow_datasets.text.conll2003  # noqa: F401

    def row(drawn, index):
        # TFDS's builder ends a file with an empty sentence.
        words = [] if index == 2 else ["EU", "rejects", "German"]
        tags = dict(ner=["B-ORG", "O", "B-MISC"], pos=["NNP", "VBZ", "JJ"], chunks=["O"] * 3)
        return {"tokens": words} | {name: values[: len(words)] for name, values in tags.items()}

    mocked_tfds.prepare("conll2003", tmp_path, {"train": 3}, row)
    sentences = TfdsTags(data_dir=str(tmp_path)).open()
    assert sentences.words == [["EU", "rejects", "German"]] * 2
    assert sentences.tags == [["B-ORG", "O", "B-MISC"]] * 2
    speech = TfdsTags(feature="pos", scheme="none", data_dir=str(tmp_path)).open()
    assert speech.tags[0] == ["NNP", "VBZ", "JJ"]
    with pytest.raises(DataError, match="'tokens' is no sequence of classes"):
        TfdsTags(feature="tokens", data_dir=str(tmp_path)).open()


def test_the_bundled_set_is_the_same_every_time():
    sentences, again = BundledEntities().open(), BundledEntities().open()
    assert (sentences.words, sentences.tags) == (again.words, again.tags) and len(sentences) == 96
    assert set(sentences.tag_names) <= set(BundledEntities().tag_names)
    held_out = BundledEntities("held_out", 16).open()
    assert not {tuple(words) for words in held_out.words} & {tuple(w) for w in sentences.words}
