import itertools
import pickle

import numpy as np

from jaxformers.data.pipeline.epochs import EpochStream

MADE_EPOCHS = []


class Numbers(list):
    """Rows that are numbers."""

    def take(self, rows):
        return Numbers(self[row] for row in rows)

    @classmethod
    def join(cls, chunks):
        return cls(itertools.chain(*chunks))


def make_epoch(seed, epoch):
    """Epochs of 5, 6, 7, 5, ... rows; row k of epoch e is 100 e + k."""
    MADE_EPOCHS.append(epoch)
    return Numbers(100 * epoch + k for k in range(5 + epoch % 3))


def test_each_epoch_holds_all_of_its_rows_once_in_an_order_of_its_own():
    rows = EpochStream(make_epoch).rows(0, 0, 18)
    epochs = rows[:5], rows[5:11], rows[11:]
    for epoch, epoch_rows in enumerate(epochs):
        assert sorted(epoch_rows) == [100 * epoch + k for k in range(5 + epoch)]
    orders = {tuple(np.array(EpochStream(make_epoch).rows(seed, 0, 5))) for seed in range(20)}
    assert len(orders) > 10
    assert [row - 300 for row in EpochStream(make_epoch).rows(0, 18, 5)] != epochs[0]
    assert EpochStream(make_epoch, 1).rows(0, 0, 18) != EpochStream(make_epoch, 2).rows(0, 0, 18)


def test_rows_are_the_same_wherever_one_begins_and_in_whatever_order_one_asks():
    expected = EpochStream(make_epoch).rows(3, 0, 200)
    stream = EpochStream(make_epoch)
    for start, count in [(150, 3), (0, 7), (199, 1), (10, 60), (151, 2)]:
        assert stream.rows(3, start, count) == expected[start : start + count]
    copy = pickle.loads(pickle.dumps(stream))
    assert copy.rows(3, 40, 9) == expected[40:49]


def test_going_on_makes_each_epoch_once():
    stream = EpochStream(make_epoch)
    MADE_EPOCHS.clear()
    for start in range(0, 60, 2):
        stream.rows(0, start, 2)
    assert sorted(set(MADE_EPOCHS)) == MADE_EPOCHS
