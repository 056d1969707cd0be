import hashlib

import pytest

from jaxformers.data import BundledPairs, ListedPairs, sentences
from jaxformers.data.translation.sources import held_out
from jaxformers.errors import ConfigError, DataError

SHORT = {"min_source_words": 2, "max_source_words": 10, "max_target_words": 12}


@pytest.mark.parametrize(
    ("pair", "split", "limits", "count"),
    [
        ("en-de", "all", {}, 43_078),
        ("en-fr", "all", {}, 41_724),
        ("en-de", "all", SHORT, 24_989),
        ("en-de", "held_out", SHORT, 749),
        ("en-de", "train", SHORT, 24_989 - 749),
    ],
)
def test_bundled_pairs_have_their_documented_sizes(pair, split, limits, count):
    assert len(BundledPairs(pair, split, **limits).open()) == count


def test_training_and_held_out_pairs_share_no_source():
    train, test = (BundledPairs("en-de", split).open() for split in ("train", "held_out"))
    assert len(train) + len(test) == 43_078
    assert not {source for source, _ in train} & {source for source, _ in test}


def test_a_document_is_held_out_by_the_md5_of_its_name():
    names = [f"document {k}" for k in range(200)]
    expected = [int(hashlib.md5(name.encode()).hexdigest(), 16) % 20 == 0 for name in names]
    assert [held_out(name) for name in names] == expected
    assert 0 < sum(expected) < 30


def test_pairs_are_read_by_index_slice_and_in_order():
    pairs = BundledPairs("en-de", "all").open()
    assert pairs[0] == ("What is Access2Base?", "Was ist Access2Base?")
    assert pairs[-1] == ("Certification Path", "Zertifikatspfad")
    assert pairs[10:13] == [pairs[10], pairs[11], pairs[12]]
    assert list(pairs)[1030] == pairs[1030]
    with pytest.raises(IndexError):
        pairs[len(pairs)]


def test_fingerprints_tell_splits_and_languages_apart():
    configs = [
        BundledPairs("en-de", "train"),
        BundledPairs("en-de", "held_out"),
        BundledPairs("en-fr", "train"),
        BundledPairs("en-de", "train", max_source_words=10),
    ]
    contents = {config.open().fingerprint["content"] for config in configs}
    assert len(contents) == len(configs)
    assert configs[0].open().fingerprint == BundledPairs("en-de", "train").open().fingerprint


@pytest.mark.parametrize("wrong", [{"pair": "en-xx"}, {"split": "test"}, {"min_source_words": 99}])
def test_what_is_not_bundled_is_refused(wrong):
    with pytest.raises((ConfigError, DataError)):
        BundledPairs(**wrong).open()


def test_sentences_are_spread_evenly_where_there_are_too_many():
    for wrong in (["ab", "cd"], [("a", "b", "c")], [("a", None)]):
        with pytest.raises(DataError, match=r"pair 1 is|text 2 is None"):
            ListedPairs(wrong, "wrong")
    pairs = ListedPairs([(f"s{k}", f"t{k}") for k in range(5000)], "numbered")
    assert len(list(sentences(pairs))) == 10_000
    assert list(sentences(pairs, limit=4)) == ["s0", "t0", "s2500", "t2500"]
