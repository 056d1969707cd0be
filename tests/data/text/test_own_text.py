import gzip

import pytest

from jaxformers.data import AlignedFiles, TsvPairs
from jaxformers.data.files import line_index
from jaxformers.errors import DataError


@pytest.fixture(params=["", ".gz"], ids=["plain", "gzip"])
def write(request, tmp_path):
    def write(name, content):
        content = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / (name + request.param)
        path.write_bytes(gzip.compress(content) if request.param else content)
        return str(path)

    return write


def message(config):
    with pytest.raises(DataError) as error:
        config.open()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_tsv_pairs_are_read_whatever_their_line_ends(write):
    path = write("pairs.tsv", "a\tä\r\nb c\tß\nlast\tletzte")
    pairs = TsvPairs(path).open()
    assert list(pairs) == [("a", "ä"), ("b c", "ß"), ("last", "letzte")]


def test_tsv_columns_can_be_chosen(write):
    path = write("pairs.tsv", b"\xef\xbb\xbfdoc\ten\tde\ndoc\ten2\tde2\textra\n")
    assert list(TsvPairs(path, 2, 1).open()) == [("de", "en"), ("de2", "en2")]
    assert TsvPairs(path).open()[0] == ("doc", "en")
    turned = TsvPairs(path, 2, 1).open()
    assert turned.fingerprint["content"] != TsvPairs(path, 1, 2).open().fingerprint["content"]


def test_aligned_files_are_read_line_by_line(write):
    files = write("text.en", "one\n\nthree\n"), write("text.de", "eins\nzwei\ndrei\n")
    assert list(AlignedFiles(*files).open()) == [("one", "eins"), ("", "zwei"), ("three", "drei")]


def test_lines_are_found_across_blocks(write, monkeypatch):
    monkeypatch.setattr(line_index, "BLOCK", 64)
    rows = [f"{k}\t{'ü' * (k % 50)}" for k in range(500)]
    pairs = TsvPairs(write("pairs.tsv", "\n".join(rows))).open()
    assert [f"{a}\t{b}" for a, b in pairs] == rows
    assert pairs[499] == ("499", "ü" * 49)


def test_an_empty_or_missing_file_is_refused(write, tmp_path):
    assert "is empty" in message(TsvPairs(write("empty.tsv", "")))
    assert "blank lines only" in message(TsvPairs(write("blank.tsv", "\n\n")))
    assert "there is no file" in message(TsvPairs(str(tmp_path / "absent.tsv")))
    assert "is a folder" in message(TsvPairs(str(tmp_path)))


def test_a_line_with_too_few_columns_is_named(write, monkeypatch):
    monkeypatch.setattr(line_index, "BLOCK", 8)
    path = write("pairs.tsv", "a\tb\nc\td\nno tab here\ne\tf\n")
    assert "line 3" in message(TsvPairs(path))
    assert "column 3 is needed" in message(TsvPairs(path, 0, 2))


def test_invalid_utf8_is_named_with_file_and_line(write, monkeypatch):
    monkeypatch.setattr(line_index, "BLOCK", 8)
    path = write("text.en", b"one\ntwo\nthr\xffee\nfour\n")
    error = message(AlignedFiles(path, path))
    assert path in error
    assert "line 3: invalid UTF-8 (byte 0xff)" in error


def test_unequal_line_counts_are_both_named(write):
    files = write("text.en", "one\ntwo\nthree\n"), write("text.de", "eins\nzwei\n")
    error = message(AlignedFiles(*files))
    assert "has 3 lines" in error
    assert "has 2" in error


def test_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "text.tsv.gz"
    compressed = gzip.compress(b"a\tb\n" * 1000)
    for content in (b"a\tb\n", compressed[:-20], compressed[:20] + b"XXXX" + compressed[24:]):
        path.write_bytes(content)
        assert "not a gzip file, or it is damaged" in message(TsvPairs(str(path)))


def test_the_fingerprint_follows_the_content_not_the_path(write):
    contents = [
        TsvPairs(write(name, text)).open().fingerprint["content"]
        for name, text in [("1.tsv", "a\tb\n"), ("2.tsv", "a\tb\n"), ("3.tsv", "a\tc\n")]
    ]
    assert contents[0] == contents[1] != contents[2]
