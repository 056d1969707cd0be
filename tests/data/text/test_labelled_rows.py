import itertools
import pickle

import encoder_use
import numpy as np
import pytest

from jaxformers.data import batches
from jaxformers.data.pipeline.fixed_length import RowPlan, Rows
from jaxformers.data.text.labelled_rows import LabelledRows, cut_pairs
from jaxformers.data.text.labelled_texts import LabelledTexts
from jaxformers.errors import ConfigError
from jaxformers.text import WordPiece, load_tokenizer

WORDS = ["my", "dog", "is", "cute", "he", "likes", "play", "##ing", "."]
TOKENIZER = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])


def texts(first, second=None, labels=None):
    kind = np.float32 if labels and isinstance(labels[0], float) else np.int32
    return LabelledTexts(
        "here", first, second, None if labels is None else np.array(labels, kind), []
    )


def popped(a, b, room):
    """The lengths by Google's loop."""
    while a + b > room:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    return a, b


def test_a_pair_is_laid_out_as_in_the_paper():
    rows = LabelledRows.build(texts(["My dog is cute."], ["He likes playing."], [1]), TOKENIZER, 14)
    row = rows.gather(np.array([0]))
    tokens = [TOKENIZER.vocabulary[i] for i in row["input_ids"][0]]
    assert " ".join(tokens) == "[CLS] my dog is cute . [SEP] he likes play ##ing . [SEP] [PAD]"
    assert row["token_type_ids"][0].tolist() == [0] * 7 + [1] * 6 + [0]
    assert row["attention_mask"][0].tolist() == [1] * 13 + [0]
    assert row["labels"].tolist() == [1]
    assert {row[name].dtype for name in row} == {np.dtype(np.int32)}


def test_a_single_text_has_one_segment_and_an_empty_second_counts_as_none():
    alone = LabelledRows.build(texts(["my dog"]), TOKENIZER, 6).gather(np.array([0]))
    empty = LabelledRows.build(texts(["my dog"], [""]), TOKENIZER, 6).gather(np.array([0]))
    assert alone["input_ids"].tolist() == [[2, 5, 6, 3, 0, 0]]
    assert "labels" not in alone and not alone["token_type_ids"].any()
    assert all(np.array_equal(alone[name], empty[name]) for name in alone)


def test_robertas_pairs_have_two_tokens_between_and_one_segment(tmp_path):
    encoder_use.folder("roberta", "encoder", tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    a, b = tokenizer.encode(["Who left", "The baker left"])
    rows = LabelledRows.build(texts(["Who left"] * 2, ["The baker left", ""]), tokenizer, 20)
    assert rows.longest == len(a) + len(b) + 4
    batch = rows.gather(np.array([0, 1]))
    expected = [[0, *a, 2, 2, *b, 2], [0, *a, 2]]
    for row, ids in enumerate(expected):
        assert batch["input_ids"][row].tolist() == ids + [1] * (20 - len(ids))
        assert batch["attention_mask"][row].sum() == len(ids)
    assert not batch["token_type_ids"].any()
    cut = LabelledRows.build(texts(["Who left"], ["The baker left"]), tokenizer, 6)
    assert cut.gather(np.array([0]))["input_ids"].tolist() == [[0, a[0], 2, 2, b[0], 2]]
    with pytest.raises(ConfigError, match="a pair needs at least 6"):
        LabelledRows.build(texts(["a"], ["b"]), tokenizer, 5)


def test_what_is_cut_is_what_popping_from_the_longer_cuts():
    sizes = np.array(list(itertools.product(range(18), range(18))))
    for length in range(5, 24):
        lengths = cut_pairs(*sizes.T, length, TOKENIZER.template)
        rooms = length - 2 - (sizes[:, 1] > 0)
        expected = [popped(a, b, room) for (a, b), room in zip(sizes, rooms, strict=True)]
        assert lengths.T.tolist() == [list(pair) for pair in expected]


def test_rows_equal_a_plain_statement_of_the_features():
    rng, length = np.random.default_rng(0), 12
    lines = [
        [" ".join(rng.choice(WORDS[:7], rng.integers(0, 15))) for _ in range(60)] for _ in "ab"
    ]
    rows = LabelledRows.build(texts(*lines, [0.5] * 60), TOKENIZER, length)
    order = rng.permutation(60)
    batch, cut = rows.gather(order), 0
    for row, index in enumerate(order):
        a, b = (TOKENIZER.encode([side[index]])[0] for side in lines)
        kept_lengths = popped(len(a), len(b), length - 2 - bool(b))
        cut += kept_lengths != (len(a), len(b))
        first = [TOKENIZER.cls_id, *a[: kept_lengths[0]], TOKENIZER.sep_id]
        second = [*b[: kept_lengths[1]], TOKENIZER.sep_id] if b else []
        padding = [0] * (length - len(first) - len(second))
        assert batch["input_ids"][row].tolist() == first + second + padding
        types = [0] * len(first) + [1] * len(second) + padding
        assert batch["token_type_ids"][row].tolist() == types
        mask = [1] * len(first + second) + padding
        assert batch["attention_mask"][row].tolist() == mask
    assert rows.cut == cut > 0 and rows.longest == length
    assert batch["labels"].dtype == np.float32


def test_the_rows_are_a_store_that_workers_can_be_sent():
    rows = LabelledRows.build(texts(WORDS, WORDS, list(range(9))), TOKENIZER, 8)
    assert isinstance(rows, Rows) and len(rows) == 9
    again = pickle.loads(pickle.dumps(rows))
    every = np.arange(9)
    assert all(np.array_equal(again.gather(every)[n], rows.gather(every)[n]) for n in ("labels",))


def test_a_batch_is_the_same_on_one_two_and_four_hosts():
    rows = LabelledRows.build(texts(WORDS * 3, None, list(range(27))), TOKENIZER, 6)
    plan = RowPlan(rows, 8)

    def read(hosts):
        iterators = [
            batches(rows, plan, seed=5, start=2, host=h, hosts=hosts) for h in range(hosts)
        ]
        steps = [[next(iterator) for iterator in iterators] for _ in range(6)]
        for iterator in iterators:
            iterator.close()
        return [{n: np.concatenate([p[n] for p in step]) for n in step[0]} for step in steps]

    single_host = read(1)
    for hosts in (2, 4):
        for expected, actual in zip(single_host, read(hosts), strict=True):
            assert all(np.array_equal(expected[name], actual[name]) for name in expected)
    labels = np.concatenate([batch["labels"] for batch in single_host])
    assert plan.steps_per_epoch == 27 / 8 and len(set(labels.tolist())) == 27


def test_the_fingerprint_names_the_length_and_the_tokenizer():
    first = LabelledRows.build(texts(["my"]), TOKENIZER, 6).fingerprint
    assert first != LabelledRows.build(texts(["my"]), TOKENIZER, 7).fingerprint
    cased = WordPiece(TOKENIZER.vocabulary, lowercase=False)
    assert first != LabelledRows.build(texts(["my"]), cased, 6).fingerprint


def test_a_length_without_room_for_a_pair_is_refused():
    with pytest.raises(ConfigError, match="a pair needs at least 5"):
        LabelledRows.build(texts(["my"]), TOKENIZER, 4)
