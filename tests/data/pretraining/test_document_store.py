import pickle
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest

from jaxformers.data import ListedDocuments, SpecialPieces, TokenizedDocuments
from jaxformers.data.pretraining import document_store
from jaxformers.errors import DataError


class Letters:
    """A tokenizer whose pieces are letters; blanks are dropped."""

    vocab_size, pad_id, cls_id, sep_id, mask_id = 200, 0, 1, 2, 3
    continues = np.arange(200) % 2 == 0
    fingerprint = "letters"
    encoded = 0

    def encode(self, texts):
        Letters.encoded += len(texts)
        return [[ord(letter) for letter in text if letter != " "] for text in texts]


TEXTS = [["ab", " ", "c"], [], ["", " "], ["def"], ["g", "h"]]
DOCUMENTS = ListedDocuments(TEXTS, "five documents")


def sentences_of(store):
    """The letters of every sentence of every document."""
    return [
        ["".join(map(chr, store.sentence(k))) for k in range(*store.documents[d : d + 2])]
        for d in range(len(store))
    ]


def test_empty_sentences_and_documents_are_dropped(tmp_path):
    store = TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path)
    assert sentences_of(store) == [["ab", "c"], ["def"], ["g", "h"]]
    assert store.sentences.tolist() == [0, 2, 3, 6, 7, 8]
    assert store.documents.tolist() == [0, 2, 3, 5]
    assert store.special == SpecialPieces(0, 1, 2, 3)
    assert store.vocab_size == 200
    assert np.array_equal(store.continues, Letters.continues)
    assert store.fingerprint == {**DOCUMENTS.fingerprint, "tokenizer": "letters"}


def test_documents_are_read_and_cut_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(document_store, "DOCUMENTS_AT_A_TIME", 4)
    monkeypatch.setattr(document_store, "SENTENCES_AT_A_TIME", 3)
    texts = [["x" * (k % 7 + j) for j in range(k % 5)] for k in range(50)]
    progress = []
    store = TokenizedDocuments.build(
        ListedDocuments(texts, "many"), Letters(), tmp_path, lambda *done: progress.append(done)
    )
    expected = [[sentence for sentence in document if sentence] for document in texts]
    assert sentences_of(store) == [document for document in expected if document]
    assert progress == [(min(k + 4, 50), 50) for k in range(0, 50, 4)]


def test_a_second_build_reuses_the_files_and_another_tokenizer_does_not(tmp_path):
    first = TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path)
    before = Letters.encoded
    second = TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path)
    assert Letters.encoded == before
    assert sentences_of(first) == sentences_of(second)
    tokenizer = Letters()
    tokenizer.fingerprint = "other letters"
    TokenizedDocuments.build(DOCUMENTS, tokenizer, tmp_path)
    assert Letters.encoded == before + 8


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_a_damaged_folder_is_written_anew(tmp_path, damage):
    TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path)
    [folder] = (path for path in (tmp_path / "documents").iterdir() if path.is_dir())
    file = folder / "sentences.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    again = TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path)
    assert sentences_of(again) == [["ab", "c"], ["def"], ["g", "h"]]
    assert not list(folder.parent.glob("*.writing-*"))


def test_of_several_that_build_at_once_one_writes(tmp_path):
    before = Letters.encoded
    with ThreadPool(4) as pool:
        stores = pool.map(
            lambda _: TokenizedDocuments.build(DOCUMENTS, Letters(), tmp_path), range(4)
        )
    assert Letters.encoded == before + 8
    assert all(len(store) == 3 for store in stores)


def test_files_are_mapped_and_not_copied_between_processes(tmp_path):
    documents = ListedDocuments([["x" * 1000]] * 500, "long")
    store = TokenizedDocuments.build(documents, Letters(), tmp_path)
    copy = pickle.dumps(store)
    assert len(copy) < 1000
    assert np.array_equal(pickle.loads(copy).ids, store.ids)
    assert store.ids.dtype == np.uint16


def test_documents_without_any_text_are_refused_and_leave_nothing_behind(tmp_path):
    for texts in ([], [[]], [["", " "]]):
        with pytest.raises(DataError, match="nothing to read holds no text"):
            TokenizedDocuments.build(ListedDocuments(texts, "nothing to read"), Letters(), tmp_path)
    assert not [path for path in (tmp_path / "documents").iterdir() if path.is_dir()]


def test_ids_can_be_given():
    texts = [[[5, 6], []], [], [[7]]]
    store = TokenizedDocuments.from_ids(texts, SpecialPieces(0, 1, 2, 3), np.zeros(9, bool))
    assert store.documents.tolist() == [0, 1, 2]
    assert store.sentence(0).tolist() == [5, 6]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.fingerprint == store.fingerprint
    with pytest.raises(DataError, match="hold no text"):
        TokenizedDocuments.from_ids([[]], SpecialPieces(0, 1, 2, 3), np.zeros(9, bool))
