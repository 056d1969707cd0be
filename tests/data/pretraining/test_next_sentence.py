import time
from itertools import pairwise

import numpy as np
import pytest
from corpora import numbered_documents, random_documents, texts_of

from jaxformers.data.pipeline.stateless_random import Draws, RowDraws
from jaxformers.data.pretraining.next_sentence import (
    COIN_WORDS,
    SentencePairs,
    kept_lengths,
    lay_pairs,
    sentence_pairs,
    target_lengths,
)


def halves(word):
    return int(word) >> 32, int(word) & (2**32 - 1)


def scaled(half, limit):
    return half * limit >> 32


def plain_target(word, room, short_sequences):
    if halves(word)[0] < short_sequences * 2**32:
        return 2 + scaled(halves(word)[1], room - 1)
    return room


def plain_pair(documents, number, i, target, words):
    """Google's loop for one row: sentence by sentence, with the words in place of its draws."""
    document, chunk, length = documents[number], [], 0
    first = i
    while True:
        chunk.append(i)
        length += document[i]
        if i == len(document) - 1 or length >= target:
            break
        i += 1
    a_end = 1 if len(chunk) < 2 else 1 + scaled(halves(words[0])[0], len(chunk) - 1)
    if len(chunk) > 1 and halves(words[0])[1] >= 2**31:
        return (number, first, first + a_end, number, first + a_end, i + 1, False), i + 1
    b_target = target - sum(document[j] for j in chunk[:a_end])
    candidates = [*range(number + 1, len(documents)), *range(number)] or [number]
    random_document = candidates[scaled(halves(words[1])[0], len(candidates))]
    start = stop = scaled(halves(words[1])[1], len(documents[random_document]))
    b_length = 0
    while stop < len(documents[random_document]):
        b_length += documents[random_document][stop]
        stop += 1
        if b_length >= b_target:
            break
    i -= len(chunk) - a_end
    return (number, first, first + a_end, random_document, start, stop, True), i + 1


def plain_pairs(documents, length, short_sequences, *seeds):
    """All documents in turn, a row each, until every one has ended."""
    draws = Draws(*seeds)
    targets = [plain_target(w, length - 3, short_sequences) for w in draws.words(len(documents))]
    at, rows = [0] * len(documents), []
    while going := [k for k in range(len(documents)) if at[k] < len(documents[k])]:
        words = draws.words(2, len(going))
        for column, number in enumerate(going):
            row, at[number] = plain_pair(
                documents, number, at[number], targets[number], words[:, column]
            )
            rows.append(row)
    return rows


def sizes_of(store):
    lengths = np.diff(store.sentences)
    return [lengths[a:b].tolist() for a, b in pairwise(store.documents)]


@pytest.mark.parametrize(("documents", "length"), [(300, 64), (300, 12), (2, 40), (1, 40)])
def test_rows_are_those_of_googles_algorithm_given_the_same_draws(documents, length):
    store = random_documents(documents, sentences=60)
    pairs = sentence_pairs(store.sentences, store.documents, length, 0.3, 5, 6)
    begin = store.documents
    expected = [
        (begin[d] + a, begin[d] + b, begin[e] + s, begin[e] + t, random)
        for d, a, b, e, s, t, random in plain_pairs(sizes_of(store), length, 0.3, 5, 6)
    ]
    actual = list(
        zip(pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop, pairs.random, strict=True)
    )
    assert actual == expected


def test_every_sentence_of_every_document_stands_in_one_row_of_an_epoch():
    store = random_documents(500)
    pairs = sentence_pairs(store.sentences, store.documents, 64, 0.1, 1)
    used = np.zeros(store.documents[-1], int)
    for a_start, a_stop, b_start, b_stop, random in zip(
        pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop, pairs.random, strict=True
    ):
        used[a_start:a_stop] += 1
        if not random:
            assert b_start == a_stop
            used[b_start:b_stop] += 1
    assert (used == 1).all()


@pytest.mark.parametrize("documents", [2, 3, 200])
def test_a_random_second_text_is_from_another_document(documents):
    store = random_documents(documents)
    document_pairs = set()
    for seed in range(1, 30):
        pairs = sentence_pairs(store.sentences, store.documents, 64, 0.1, seed)
        first = np.searchsorted(store.documents, pairs.a_start, side="right") - 1
        second = np.searchsorted(store.documents, pairs.b_start, side="right") - 1
        last = np.searchsorted(store.documents, pairs.b_stop - 1, side="right") - 1
        assert ((first != second) == pairs.random).all()
        assert (second == last).all()
        document_pairs |= set(zip(first[pairs.random], second[pairs.random], strict=True))
    assert documents > 3 or len(document_pairs) == documents * (documents - 1)


def test_half_of_the_second_texts_are_random_and_all_where_a_chunk_is_one_sentence():
    store = random_documents(5000)
    pairs = sentence_pairs(store.sentences, store.documents, 64, 0.0, 3)
    end = store.documents[np.searchsorted(store.documents, pairs.a_start, side="right")]
    reached = np.searchsorted(store.sentences, store.sentences[pairs.a_start] + 61)
    single = np.minimum(reached, end) - pairs.a_start == 1
    assert single.sum() > 200
    assert pairs.random[single].all()
    several = pairs.random[~single]
    assert abs(several.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(several))


def test_one_document_in_ten_gets_shorter_rows_of_every_length():
    targets = target_lengths(100_000, 125, 0.1, Draws(7))
    assert targets.min() == 2
    assert targets.max() == 125
    short = targets[targets < 125]
    assert abs(len(short) / 100_000 - 0.1 * 123 / 124) < 4 * 0.3 / np.sqrt(100_000)
    counts = np.bincount(short, minlength=125)[2:]
    expected = len(short) / 123
    assert ((counts - expected) ** 2 / expected).sum() < 123 + 5 * np.sqrt(2 * 123)


def test_the_first_text_takes_any_part_of_the_chunk():
    sentences, documents = np.arange(100_001), np.arange(0, 100_001, 10)
    pairs = sentence_pairs(sentences, documents, 8, 0.0, 3)  # chunks of 5 sentences
    first = pairs.a_stop[:10_000] - pairs.a_start[:10_000]
    counts = np.bincount(first, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 2500).max() < 4 * np.sqrt(10_000 * 0.25 * 0.75)


def test_epochs_and_seeds_cut_differently_and_the_same_ones_alike():
    store = random_documents(50)

    def pair_columns(*seeds):
        pairs = sentence_pairs(store.sentences, store.documents, 64, 0.1, *seeds)
        return [column.tolist() for column in vars(pairs).values()]

    assert pair_columns(1, 0) == pair_columns(1, 0)
    assert pair_columns(1, 0) != pair_columns(1, 1) != pair_columns(2, 0)


def plain_truncate(a, b, room, coins):
    """Google's loop; the coins of A's cuts come first in `coins`, then B's."""
    sides, sizes = [], [len(a), len(b)]
    while sum(sizes) > room:
        side = 0 if sizes[0] > sizes[1] else 1
        sizes[side] -= 1
        sides.append(side)
    a, b = list(a), list(b)
    for text, number, offset in ((a, 0, 0), (b, 1, sides.count(0))):
        for k in range(sides.count(number)):
            del text[0 if coins[offset + k] else -1]
    return a, b


def test_too_long_pairs_lose_tokens_of_the_longer_text_at_either_end():
    sizes = [(3, 4), (40, 3), (3, 40), (40, 40), (17, 40), (40, 17), (1, 700), (600, 500), (16, 16)]
    store = numbered_documents(*[[size] for pair in sizes for size in pair])
    first = np.arange(0, 2 * len(sizes), 2)
    for length in (32, 33):
        pairs = SentencePairs(first, first + 1, first + 1, first + 2, first < 0)
        draws = RowDraws((length,), range(len(sizes)), COIN_WORDS)
        batch, _ = lay_pairs(store, pairs, length, draws, slice(None))
        for row in range(len(sizes)):
            a, b = store.sentence(2 * row).tolist(), store.sentence(2 * row + 1).tolist()
            cut = max(len(a) + len(b) - length + 3, 0)
            words = draws.words[row] if cut <= 512 else draws.more(row, -(-cut // 64))
            coins = [int(word) >> bit & 1 for word in words for bit in range(64)]
            expected = plain_truncate(a, b, length - 3, coins)
            assert texts_of(batch["input_ids"][row]) == expected


def test_cuts_fall_on_the_front_as_often_as_on_the_back():
    store = numbered_documents([40], [40])
    zeros, rows = np.zeros(2000, int), 2000
    pairs = SentencePairs(zeros, zeros + 1, zeros + 1, zeros + 2, zeros > 0)
    draws = RowDraws((5,), range(rows), COIN_WORDS)
    batch, _ = lay_pairs(store, pairs, 43, draws, slice(None))
    a_front = batch["input_ids"][:, 1] - store.ids[0]
    b_front = batch["input_ids"][:, 22] - store.ids[40]
    for front in (a_front, b_front):  # 20 coins each
        assert abs(front.mean() - 10) < 4 * np.sqrt(5 / rows)
        assert abs(front.var() - 5) < 1


def test_kept_lengths_are_those_of_cutting_one_by_one():
    for room in (9, 10):
        a, b = (grid.ravel() for grid in np.meshgrid(np.arange(1, 25), np.arange(1, 25)))
        lengths = kept_lengths(a, b, room)
        for k in range(len(a)):
            expected = plain_truncate(range(a[k]), range(b[k]), room, [0] * 50)
            assert (lengths[0][k], lengths[1][k]) == tuple(map(len, expected))


def test_segments_and_attention_follow_the_two_texts():
    store = random_documents(50)
    pairs = sentence_pairs(store.sentences, store.documents, 40, 0.1, 1)
    draws = RowDraws((1,), range(len(pairs)), COIN_WORDS)
    batch, text = lay_pairs(store, pairs, 40, draws, slice(None))
    for row in range(len(pairs)):
        a, b = texts_of(batch["input_ids"][row])
        padding = 40 - len(a) - len(b) - 3
        types = [0] * (len(a) + 2) + [1] * (len(b) + 1) + [0] * padding
        assert batch["token_type_ids"][row].tolist() == types
        assert batch["attention_mask"][row].tolist() == [1] * (40 - padding) + [0] * padding
        text_mask = [0] + [1] * len(a) + [0] + [1] * len(b) + [0] * (padding + 1)
        assert text[row].astype(int).tolist() == text_mask
        assert batch["next_sentence"][row] == pairs.random[row]


def test_a_million_sentences_are_paired_in_seconds():
    rng = np.random.default_rng(0)
    sentences = np.concatenate([[0], np.cumsum(rng.integers(3, 45, 1_000_000))])
    documents = np.concatenate([np.arange(0, 1_000_000, 25), [1_000_000]])
    start = time.process_time()
    sentence_pairs(sentences, documents, 128, 0.1, 1)
    assert time.process_time() - start < 3
