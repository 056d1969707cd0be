import pickle
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest

from jaxformers.data import BundledPairs, ListedPairs, SpecialIds, TokenizedPairs
from jaxformers.errors import DataError
from jaxformers.text import Tokenizer


class Letters(Tokenizer):
    """A tokenizer whose pieces are letters; targets are told apart by 100."""

    vocab_size, pad_id, eos_id, unk_id, start_id = 300, 0, 1, 2, 0
    fingerprint = "letters"
    encoded = 0

    def encode(self, texts):
        Letters.encoded += len(texts)
        return [[ord(letter) % 150 for letter in text] for text in texts]

    def encode_target(self, texts):
        return [[ord(letter) % 150 + 100 for letter in text] for text in texts]


PAIRS = ListedPairs([("ab", "c"), ("", "de"), ("f", "")], "three pairs")


def test_every_example_ends_in_eos_and_can_be_gathered(tmp_path):
    store = TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    assert len(store) == 3
    assert [list(map(list, store.gather(k))) for k in range(3)] == [
        [[97, 98, 1], [199, 1]],
        [[1], [200, 201, 1]],
        [[102, 1], [1]],
    ]
    source, target = store.lengths
    assert source.tolist() == [3, 1, 2]
    assert target.tolist() == [2, 3, 1]


def test_a_second_build_reuses_the_files(tmp_path):
    first = TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    before = Letters.encoded
    second = TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    assert Letters.encoded == before
    assert np.array_equal(first.source.ids, second.source.ids)
    assert first.fingerprint == second.fingerprint == {**PAIRS.fingerprint, "tokenizer": "letters"}


def test_other_pairs_or_another_tokenizer_are_written_anew(tmp_path):
    TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    tokenizer = Letters()
    tokenizer.fingerprint = "other letters"
    before = Letters.encoded
    TokenizedPairs.build(PAIRS, tokenizer, tmp_path)
    TokenizedPairs.build(ListedPairs([("x", "y")], "one pair"), Letters(), tmp_path)
    assert Letters.encoded == before + 4


@pytest.mark.parametrize("damage", ["truncated", "deleted", "half-written", "[1]", "[" * 100_000])
def test_an_unfinished_or_damaged_folder_is_written_anew(tmp_path, damage):
    TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    [folder] = (path for path in (tmp_path / "pairs").iterdir() if path.is_dir())
    file = folder / "target_ids.npy"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "deleted":
        file.unlink()
    elif damage.startswith("["):
        (folder / "meta.json").write_text(damage)
    else:
        (folder / "meta.json").unlink()
        (folder.parent / f"{folder.name}.writing-123").mkdir()
    again = TokenizedPairs.build(PAIRS, Letters(), tmp_path)
    assert again.gather(1)[1].tolist() == [200, 201, 1]
    assert not list(folder.parent.glob("*.writing-*"))


def test_a_failed_build_leaves_nothing_behind(tmp_path):
    class Broken(Letters):
        def encode_target(self, texts):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        TokenizedPairs.build(PAIRS, Broken(), tmp_path)
    assert not [path for path in (tmp_path / "pairs").iterdir() if path.is_dir()]


def test_progress_counts_to_the_end(tmp_path):
    progress = []
    pairs = BundledPairs("en-de", "all").open()
    TokenizedPairs.build(
        ListedPairs(pairs[:10_000], "many"),
        Letters(),
        tmp_path,
        lambda *done: progress.append(done),
    )
    assert progress == [(4096, 10_000), (8192, 10_000), (10_000, 10_000)]


def test_of_several_that_build_at_once_one_writes(tmp_path):
    before = Letters.encoded
    with ThreadPool(4) as pool:  # the lock holds between threads as between processes
        stores = pool.map(lambda _: TokenizedPairs.build(PAIRS, Letters(), tmp_path), range(4))
    assert Letters.encoded == before + len(PAIRS)
    assert all(store.gather(0)[0].tolist() == [97, 98, 1] for store in stores)


def test_files_are_mapped_and_not_copied_between_processes(tmp_path):
    rows = [("a" * 1000, "b" * 1000)] * 500
    store = TokenizedPairs.build(ListedPairs(rows, "long"), Letters(), tmp_path)
    copy = pickle.dumps(store)
    assert len(copy) < 1000
    assert np.array_equal(pickle.loads(copy).source.ids, store.source.ids)


def test_ids_can_be_given(tmp_path):
    store = TokenizedPairs.from_ids([[5, 6], []], [[7], [8, 9]], SpecialIds(0, 1, 0))
    assert [ids.tolist() for ids in store.gather(0)] == [[5, 6, 1], [7, 1]]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.fingerprint == store.fingerprint
    with pytest.raises(DataError, match="differ in number"):
        TokenizedPairs.from_ids([[5]], [], SpecialIds(0, 1, 0))


def test_no_pair_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no pair"):
        TokenizedPairs.build(ListedPairs([], "nothing"), Letters(), tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="set JAXFORMERS_CACHE") as error:
        TokenizedPairs.build(PAIRS, Letters(), tmp_path / "file")
    assert str(tmp_path) in str(error.value)
