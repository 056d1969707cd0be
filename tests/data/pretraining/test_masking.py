import numpy as np
import pytest
from corpora import FIRST, SPECIAL, random_documents, unmasked

from jaxformers.data import Phase, Pretraining, SpecialPieces, TokenizedDocuments
from jaxformers.data.pipeline.stateless_random import RowDraws
from jaxformers.data.pretraining.masking import mask, prediction_counts

EXAMPLES, ROWS = 100_000, 2000
CONTINUES = np.arange(50) >= 30


def plain_mask(store, ids, text, count, words, whole_words):
    """Google's loop; words are shuffled by the draw of their first piece."""
    length = len(ids)
    order, fate = words[:length], words[length:]
    groups = []
    for position in np.flatnonzero(text):
        if whole_words and groups and store.continues[ids[position]]:
            groups[-1].append(position)
        else:
            groups.append([position])
    chosen = []
    for group in sorted(groups, key=lambda group: int(order[group[0]]) >> 1):
        if len(chosen) >= count:
            break
        if len(chosen) + len(group) <= count:
            chosen += group
    input_ids = ids.copy()
    for slot, position in enumerate(sorted(chosen)):
        high, low = int(fate[slot]) >> 32, int(fate[slot]) & (2**32 - 1)
        if high < 0.8 * 2**32:
            input_ids[position] = store.special.mask
        elif high >= 0.9 * 2**32:
            input_ids[position] = low * store.vocab_size >> 32
    return input_ids, sorted(chosen)


@pytest.mark.parametrize("whole_words", [False, True])
@pytest.mark.parametrize("share", [0.15, 0.6])
def test_masks_are_those_of_googles_algorithm_given_the_same_draws(whole_words, share):
    rows, length, most = 300, 40, 12
    rng = np.random.default_rng(0)
    store = TokenizedDocuments.from_ids([[[FIRST]]], SPECIAL, CONTINUES)
    ids = rng.integers(FIRST, 50, (rows, length)).astype(np.int32)
    lengths = rng.integers(5, length + 1, rows)
    text = np.arange(length) < (lengths - 1)[:, None]
    text[:, [0, 2]] = False
    counts = prediction_counts(lengths, share, most)
    words = RowDraws((3,), range(rows), length + most).words
    batch = mask(store, ids, text, counts, words, whole_words)
    for row in range(rows):
        expected, chosen = plain_mask(
            store, ids[row], text[row], counts[row], words[row], whole_words
        )
        assert batch["input_ids"][row].tolist() == expected.tolist()
        unused = [0] * (most - len(chosen))
        assert batch["masked_positions"][row].tolist() == chosen + unused
        assert batch["masked_ids"][row].tolist() == ids[row, chosen].tolist() + unused
        assert batch["masked_weights"][row].tolist() == [1.0] * len(chosen) + unused


def test_the_number_of_predictions_is_pythons_round_within_its_limits():
    lengths = np.arange(5, 513)
    expected = [min(20, max(1, round(n * 0.15))) for n in lengths.tolist()]
    assert prediction_counts(lengths, 0.15, 20).tolist() == expected
    assert prediction_counts(np.array([10, 30]), 0.25, 20).tolist() == [2, 8]  # 2.5 and 7.5


@pytest.fixture(scope="module")
def examples():
    """100,000 examples of BERT's first phase, joined."""
    store = random_documents(3000)
    plan = Pretraining((Phase(128, ROWS, 20),)).plan(store)
    batches = [plan.batch(store, 0, step) for step in range(EXAMPLES // ROWS)]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def within(count, trials, probability):
    """Whether a binomial count is no further than 5 standard deviations from what it should be."""
    deviation = np.sqrt(trials * probability * (1 - probability))
    return abs(count - trials * probability) < 5 * deviation


@pytest.mark.slow
def test_fifteen_in_a_hundred_tokens_are_predicted(examples):
    lengths = examples["attention_mask"].sum(axis=1)
    counts = [min(20, max(1, round(0.15 * n))) for n in lengths.tolist()]
    assert examples["masked_weights"].sum(axis=1).tolist() == counts
    assert abs(examples["masked_weights"].sum() / lengths.sum() - 0.15) < 0.01


def test_of_the_predicted_80_are_hidden_10_kept_and_10_random(examples):
    rows, slots = np.nonzero(examples["masked_weights"])
    inputs = examples["input_ids"][rows, examples["masked_positions"][rows, slots]]
    label = examples["masked_ids"][rows, slots]
    assert (label >= FIRST).all()
    assert within((inputs == SPECIAL.mask).sum(), len(inputs), 0.8 + 0.1 / 1000)
    assert within((inputs == label).sum(), len(inputs), 0.1 + 0.1 / 1000)
    drawn = inputs[(inputs != SPECIAL.mask) & (inputs != label)]
    counts = np.delete(np.bincount(drawn, minlength=1000), SPECIAL.mask)
    expected = len(drawn) / 999
    assert ((counts - expected) ** 2 / expected).sum() < 999 + 5 * np.sqrt(2 * 999)


def test_a_special_token_is_never_masked_and_nothing_else_changes(examples):
    ids = unmasked(examples)
    rows, slots = np.nonzero(examples["masked_weights"])
    positions = examples["masked_positions"][rows, slots]
    assert (ids[rows, positions] >= FIRST).all()
    unpredicted = np.ones(ids.shape, bool)
    unpredicted[rows, positions] = False
    lengths = examples["attention_mask"].sum(axis=1)
    assert (ids[:, 0] == SPECIAL.cls).all()
    assert (ids[np.arange(EXAMPLES), lengths - 1] == SPECIAL.sep).all()
    assert ((ids == SPECIAL.sep).sum(axis=1) == 2).all()
    assert (ids[examples["attention_mask"] == 0] == SPECIAL.pad).all()
    assert (examples["input_ids"][unpredicted] == ids[unpredicted]).all()


def test_every_place_is_predicted_equally_often(examples):
    full = examples["attention_mask"].sum(axis=1) == 128
    chosen = np.zeros((full.sum(), 128), bool)
    rows, slots = np.nonzero(examples["masked_weights"][full])
    chosen[rows, examples["masked_positions"][full][rows, slots]] = True
    text = unmasked(examples)[full] >= FIRST
    counts, trials = chosen.sum(axis=0)[1:127], text.sum(axis=0)[1:127]
    share = 19 / 125
    assert ((counts - trials * share) ** 2 / (trials * share)).sum() < 126 + 5 * np.sqrt(2 * 126)


def test_predictions_are_ascending_and_none_comes_twice(examples):
    positions = np.where(examples["masked_weights"] > 0, examples["masked_positions"], 1000)
    steps = np.diff(positions, axis=1)
    assert (steps[positions[:, 1:] < 1000] > 0).all()
    unused = examples["masked_weights"] == 0
    assert not examples["masked_positions"][unused].any()
    assert not examples["masked_ids"][unused].any()


def test_the_second_text_is_the_next_one_about_half_of_the_time(examples):
    assert 0.5 < examples["next_sentence"].mean() < 0.6  # single sentences are always random


def test_a_long_word_is_passed_over_and_never_split():
    continues = np.array([False] * 6 + [True])
    store = TokenizedDocuments.from_ids([[[5]]], SpecialPieces(0, 1, 2, 3), continues)
    ids = np.tile([1, 5, 6, 6, 6, 5, 6, 5, 2], (500, 1)).astype(np.int32)
    text = np.tile([False] + [True] * 7 + [False], (500, 1))
    words = RowDraws((1,), range(500), 9 + 3).words
    batch = mask(store, ids, text, np.full(500, 3), words, whole_words=True)
    masked = [
        tuple(p[w > 0])
        for p, w in zip(batch["masked_positions"], batch["masked_weights"], strict=True)
    ]
    assert set(masked) == {(5, 6, 7)}
