import gzip
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from jaxformers.data import (
    BundledDocuments,
    JoinedDocuments,
    ListedDocuments,
    ListedPairs,
    TextFolder,
    TfdsDocuments,
    document_sentences,
)
from jaxformers.errors import DataError

ARTICLES = [
    f"A title {k}\n\nIt is number {k}. It is short.\nAnother line is here." for k in range(9)
]
SENTENCES = ["It is short.", "Another line is here."]


def message(config):
    with pytest.raises(DataError) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_bundled_addresses_are_split_by_document():
    splits = {split: BundledDocuments(split).open() for split in ("train", "held_out", "all")}
    assert {split: len(documents) for split, documents in splits.items()} == {
        "train": 215,
        "held_out": 18,
        "all": 233,
    }
    train, held_out = ({" ".join(doc) for doc in splits[split]} for split in ("train", "held_out"))
    assert not train & held_out
    assert sum(map(len, splits["all"])) > 60_000
    contents = {documents.fingerprint["content"] for documents in splits.values()}
    assert len(contents) == 3
    assert "use train" in message(BundledDocuments("test"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "one.txt").write_text("It rains. It pours.\nMr. X sleeps.\n\nHe wakes.\n")
    with gzip.open(tmp_path / "b" / "two.txt.gz", "wt") as file:
        file.write("\n\nA book. It ends.\r\n \nAnother begins.")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "notes.md").write_text("Not a book.")
    return tmp_path


def test_a_file_is_a_document(folder):
    documents = TextFolder(str(folder)).open()
    assert list(documents) == [
        ["A book.", "It ends.", "Another begins."],
        ["It rains.", "It pours.", "Mr. X sleeps.", "He wakes."],
    ]
    assert documents[-1] == documents[1]
    assert list(TextFolder(str(folder), "*.md").open()) == [["Not a book."]]
    assert list(TextFolder(str(folder / "notes.md")).open()) == [["Not a book."]]


def test_blank_lines_can_part_documents(folder):
    documents = TextFolder(str(folder), documents="blank_lines").open()
    assert list(documents) == [
        ["A book.", "It ends."],
        ["Another begins."],
        ["It rains.", "It pours.", "Mr. X sleeps."],
        ["He wakes."],
    ]
    assert documents.read([3, 0]) == [["He wakes."], ["A book.", "It ends."]]


def test_lines_can_be_sentences(folder):
    documents = TextFolder(str(folder), documents="blank_lines", sentences="lines").open()
    assert documents[2] == ["It rains. It pours.", "Mr. X sleeps."]
    assert TextFolder(str(folder), sentences="lines").open()[0] == [
        "A book. It ends.",
        "Another begins.",
    ]


def test_the_fingerprint_follows_the_text_and_how_it_is_cut(folder):
    first = TextFolder(str(folder)).open().fingerprint
    assert first == TextFolder(str(folder)).open().fingerprint
    assert first["documents"] == 2
    changed = [
        TextFolder(str(folder), sentences="lines").open().fingerprint,
        TextFolder(str(folder), documents="blank_lines").open().fingerprint,
    ]
    (folder / "one.txt").write_text("It rains. It pours.\n")
    changed.append(TextFolder(str(folder)).open().fingerprint)
    assert len({fingerprint["content"] for fingerprint in [first, *changed]}) == 4


def test_what_cannot_be_read_is_named(folder):
    assert "BooksCorpus" in message(TextFolder(str(folder / "absent")))
    assert "no text file *.json" in message(TextFolder(str(folder), "*.json"))
    assert "use files or blank_lines" in message(TextFolder(str(folder), documents="lines"))
    assert "use split or lines" in message(TextFolder(str(folder), sentences="words"))
    (folder / "bad.txt").write_bytes(b"caf\xe9")
    assert "bad.txt, line 1: invalid UTF-8" in message(TextFolder(str(folder)))


def test_blank_lines_may_hold_any_white_space(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffÜber.\n \t\r\nEin\n\u3000\n  Zwei\n\n\n“Drei”\n\xa0")
    documents = TextFolder(str(tmp_path), documents="blank_lines", sentences="lines").open()
    assert list(documents) == [["Über."], ["Ein"], ["Zwei"], ["“Drei”"]]


def test_blank_files_are_passed_over_unless_all_are(folder, tmp_path):
    expected = list(TextFolder(str(folder)).open())
    (folder / "blank.txt").write_text("\n \n")
    with gzip.open(folder / "b" / "nothing.txt.gz", "wb"):
        pass
    assert list(TextFolder(str(folder)).open()) == expected
    for name in ("one.txt", "b/two.txt.gz"):
        (folder / name).unlink()
    assert "holds no text: its files are empty or blank" in message(TextFolder(str(folder)))


def test_sources_can_be_joined(folder):
    books = TextFolder(str(folder))
    notes = TextFolder(str(folder / "notes.md"))
    documents = JoinedDocuments((books, notes, books)).open()
    expected = [*books.open(), *notes.open(), *books.open()]
    assert list(documents) == expected
    assert documents.read([4, 0, 2, 3]) == [expected[k] for k in (4, 0, 2, 3)]
    reordered = JoinedDocuments((notes, books, books)).open().fingerprint
    assert documents.fingerprint["content"] != reordered["content"]
    assert "at least one source" in message(JoinedDocuments())


def test_many_files_are_not_held_open(tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03}.txt").write_text(f"This is {number}.")
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "from jaxformers.data import TextFolder\n"
        f"documents = TextFolder({str(tmp_path)!r}).open()\n"
        "assert [len(each) for each in documents] == [1] * 300"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


class Wikipedia(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A small stand-in for the public set, under its name."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="20230601.en", version=VERSION),)
    name = "wikipedia"

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"title": tfds.features.Text(), "text": tfds.features.Text()}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples(manager)}

    def _generate_examples(self, manager):
        for index, text in enumerate(ARTICLES):
            yield index, {"title": f"A title {index}", "text": text}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = Wikipedia(data_dir=folder, config="20230601.en", file_format="array_record")
    builder.download_and_prepare()
    return str(folder)


def test_wikipedia_is_read_article_by_article_without_its_headings(data_dir):
    documents = TfdsDocuments(data_dir=data_dir).open()
    expected = [[f"It is number {k}.", *SENTENCES] for k in range(9)]
    assert sorted(documents) == expected
    with_headings = TfdsDocuments(data_dir=data_dir, min_words=0).open()
    assert sorted(with_headings) == [[f"A title {k}", *expected[k]] for k in range(9)]
    assert documents.fingerprint["content"] != with_headings.fingerprint["content"]
    assert len(TfdsDocuments(split="train[:4]", data_dir=data_dir).open()) == 4


def test_a_missing_set_is_answered_with_what_to_do(tmp_path, data_dir):
    command = f"jaxformers prepare wikipedia/20230601.en --data-dir {tmp_path}"
    assert message(TfdsDocuments(data_dir=str(tmp_path))).endswith(command)
    assert "no feature body" in message(TfdsDocuments(feature="body", data_dir=data_dir))
    assert "use TextFolder" in message(TfdsDocuments("bookcorpus"))


def test_a_vocabulary_can_be_trained_on_evenly_spaced_documents():
    documents = ListedDocuments([[f"{k}", "and"] for k in range(1000)], "numbers")
    assert len(list(document_sentences(documents, None))) == 2000
    some = list(document_sentences(documents, 200))
    assert some == [sentence for k in range(0, 1000, 10) for sentence in (f"{k}", "and")]
    assert list(document_sentences(ListedDocuments([], "nothing"))) == []


def test_half_a_surrogate_pair_becomes_the_replacement_character():
    assert list(ListedDocuments([["a \ud83d"]], "cut emoji")) == [["a \ufffd"]]
    assert list(ListedPairs([("a \ud83d", "\udfff")], "cut emoji")) == [("a \ufffd", "\ufffd")]


@pytest.mark.parametrize("documents", ["One text.", ["One text.", "Another."], {"a": ["b"]}])
def test_texts_given_for_documents_are_refused(documents):
    with pytest.raises(DataError, match="documents are lists of sentences"):
        ListedDocuments(documents, "texts")
    with pytest.raises(DataError, match="text 2 is None"):
        ListedDocuments([["a", None]], "texts")
