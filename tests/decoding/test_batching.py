import threading

import numpy as np
import pytest
from test_search import EOS, PAD, sources, tiny

from jaxformers.decoding import batching, beam_search, decode_stream, decode_texts


def lists(vocab=11, rows=11, lengths=(1, 12), seed=0):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(2, vocab, n).tolist(), EOS] for n in rng.choice(lengths, rows)]


def test_texts_come_back_in_order_as_each_alone():
    model, variables = tiny(11, scale=1.0)
    texts = lists()
    decoded = decode_texts(model, variables, texts, rows=4)
    for text, ids in zip(texts, decoded, strict=True):
        alone = beam_search(model, variables, np.array([text])).ids[0].tolist()
        assert ids == alone[: len(ids)] and set(alone[len(ids) :]) <= {PAD}
    assert list(decode_stream(model, variables, iter(texts), rows=4)) == decoded


def test_lengths_and_rows_take_few_values():
    steps = sorted({batching.length_step(n, 512) for n in range(1, 513)})
    assert steps == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    assert all(batching.length_step(n, 512) >= n for n in range(1, 513))
    assert batching.length_step(95, 100) == 96 and batching.length_step(97, 100) == 100
    assert sorted({batching.row_step(n, 32) for n in range(1, 33)}) == [1, 2, 8, 32]
    assert all(batching.row_step(n, 24) >= n for n in range(1, 25))


def test_every_source_is_in_one_batch_under_its_mask():
    texts = lists(rows=30, lengths=range(1, 20))
    indices = []
    for chosen, ids, mask in batching.batches(texts, 8, 512, PAD):
        for index, row, row_mask in zip(chosen, ids, mask, strict=False):
            assert row[row_mask == 1].tolist() == texts[index]
            assert (row[row_mask == 0] == PAD).all()
        indices += chosen
    assert sorted(indices) == list(range(30))


def test_a_stream_answers_each_sentence_before_the_next_is_typed():
    model, variables = tiny(11, scale=1.0)
    answered = threading.Event()

    def typed():
        for text in lists(rows=3):
            answered.clear()
            yield text
            assert answered.wait(30), "the next sentence was asked for before the answer"

    count = 0
    for _ in decode_stream(model, variables, typed()):
        count += 1
        answered.set()
    assert count == 3


def test_an_error_of_the_input_comes_after_what_came_before_it():
    model, variables = tiny(11, scale=1.0)

    def broken():
        yield from lists(rows=2)
        raise OSError("gone")

    answers = decode_stream(model, variables, broken())
    assert len([next(answers), next(answers)]) == 2
    with pytest.raises(OSError, match="gone"):
        next(answers)


def test_nothing_in_gives_nothing_out():
    model, variables = tiny(11)
    assert decode_texts(model, variables, []) == []
    assert list(decode_stream(model, variables, [])) == []
    assert sources(11)
