import itertools
import pickle

import numpy as np

from jaxformers.data.pipeline.epochs import EpochStream

MADE = []


class Numbers(list):
    """Rows that are numbers."""

    def take(self, rows):
        return Numbers(self[row] for row in rows)

    @classmethod
    def join(cls, parts):
        return cls(itertools.chain(*parts))


def made(seed, epoch):
    """Epochs of 5, 6, 7, 5, ... rows; row k of epoch e is 100 e + k."""
    MADE.append(epoch)
    return Numbers(100 * epoch + k for k in range(5 + epoch % 3))


def test_each_epoch_holds_all_of_its_rows_once_in_an_order_of_its_own():
    rows = EpochStream(made).rows(0, 0, 18)
    parts = rows[:5], rows[5:11], rows[11:]
    for epoch, part in enumerate(parts):
        assert sorted(part) == [100 * epoch + k for k in range(5 + epoch)]
    orders = {tuple(np.array(EpochStream(made).rows(seed, 0, 5))) for seed in range(20)}
    assert len(orders) > 10
    assert [row - 300 for row in EpochStream(made).rows(0, 18, 5)] != parts[0]
    assert EpochStream(made, 1).rows(0, 0, 18) != EpochStream(made, 2).rows(0, 0, 18)


def test_rows_are_the_same_wherever_one_begins_and_in_whatever_order_one_asks():
    whole = EpochStream(made).rows(3, 0, 200)
    stream = EpochStream(made)
    for start, count in [(150, 3), (0, 7), (199, 1), (10, 60), (151, 2)]:
        assert stream.rows(3, start, count) == whole[start : start + count]
    copy = pickle.loads(pickle.dumps(stream))
    assert copy.rows(3, 40, 9) == whole[40:49]


def test_going_on_makes_each_epoch_once():
    stream = EpochStream(made)
    MADE.clear()
    for start in range(0, 60, 2):
        stream.rows(0, start, 2)
    assert sorted(set(MADE)) == MADE
