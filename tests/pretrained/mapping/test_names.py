"""The name map as a mechanism: reversible, strict, and open to the transforms of later formats."""

from dataclasses import dataclass

import numpy as np
import pytest
from marian_folders import SMALL, cases

from jaxformers.errors import WeightsError
from jaxformers.models import Transformer
from jaxformers.pretrained.mapping.name_map import Entry, NameMap
from jaxformers.pretrained.mapping.transforms import Flat, Linear
from jaxformers.pretrained.marian.marian_config import read_config
from jaxformers.pretrained.marian.marian_hf import MARIAN
from jaxformers.pretrained.model_variables import variable_shapes


class Source:
    place = "the file"

    def __init__(self, tensors):
        self.tensors = tensors
        self.shapes = {name: value.shape for name, value in tensors.items()}

    def read(self, name):
        return self.tensors[name]


def test_reading_undoes_writing_for_every_marian_variable():
    shapes = variable_shapes(Transformer(read_config(SMALL, None, "config")))
    random = np.random.RandomState(0)
    ours = {path: random.randn(*shape).astype(np.float32) for path, shape in shapes.items()}
    theirs = MARIAN.write(ours)
    assert {name: value.shape for name, value in theirs.items()} == cases.shapes(SMALL)
    again = MARIAN.read(Source(theirs), shapes)
    assert again.keys() == ours.keys()
    assert all(np.array_equal(again[path], ours[path]) for path in ours)


@pytest.mark.parametrize(
    ("transform", "shape", "theirs"),
    [(Linear(), (6, 2, 3), (6, 6)), (Linear(2), (2, 3, 5), (5, 6)), (Flat(1), (7,), (1, 7))],
)
def test_transforms_are_reversible(transform, shape, theirs):
    ours = np.random.RandomState(0).randn(*shape)
    converted = transform.to_theirs(ours)
    assert converted.shape == transform.their_shape(shape) == theirs
    np.testing.assert_array_equal(transform.to_ours(converted, shape)[0], ours)


def test_heads_are_consecutive_rows_of_the_published_projection():
    weight = np.arange(24).reshape(6, 4)  # out = 2 heads x 3, in = 4
    (kernel,) = Linear().to_ours(weight, (4, 2, 3))
    x = np.arange(4)
    np.testing.assert_array_equal(np.einsum("d,dhk->hk", x, kernel).reshape(-1), weight @ x)


def test_a_variable_without_a_name_is_refused():
    with pytest.raises(WeightsError, match="no name for params/b"):
        NameMap((Entry("a", "params/a"),)).write({"params/a": np.ones(1), "params/b": np.ones(1)})


@dataclass(frozen=True)
class Fused:
    """Query, key and value in one weight `[3 D, D]`, one after the other (CLIP, timm)."""

    linear: Linear = Linear()

    def their_shape(self, *ours):
        rows, columns = self.linear.their_shape(ours[0])
        return len(ours) * rows, columns

    def to_ours(self, theirs, *ours):
        splits = np.split(theirs, len(ours))
        return tuple(self.linear.to_ours(p, s)[0] for p, s in zip(splits, ours, strict=True))

    def to_theirs(self, *ours):
        return np.concatenate([self.linear.to_theirs(x) for x in ours])


@dataclass(frozen=True)
class Convolution:
    """OIHW there, HWIO here."""

    def their_shape(self, *ours):
        h, w, i, o = ours[0]
        return o, i, h, w

    def to_ours(self, theirs, *ours):
        return (theirs.transpose(2, 3, 1, 0),)

    def to_theirs(self, *ours):
        return ours[0].transpose(3, 2, 0, 1)


def test_later_formats_need_only_new_transforms():
    qkv = tuple(f"params/blocks/{name}/kernel" for name in ("query", "key", "value"))
    later = NameMap(
        (
            Entry("blocks.{layer}.attn.in_proj_weight", qkv, Fused()),
            Entry("conv1.weight", "params/conv/kernel", Convolution()),
            Entry("bn1.running_mean", "batch_stats/bn/mean"),
        ),
        ignored=(r".*\.num_batches_tracked",),
    )
    random = np.random.RandomState(0)
    shapes = dict.fromkeys(qkv, (2, 6, 3, 2))
    shapes |= {"params/conv/kernel": (5, 4, 3, 7), "batch_stats/bn/mean": (7,)}
    ours = {path: random.randn(*shape).astype(np.float32) for path, shape in shapes.items()}
    theirs = later.write(ours)
    assert theirs["blocks.1.attn.in_proj_weight"].shape == (18, 6)
    assert theirs["conv1.weight"].shape == (7, 3, 5, 4)
    theirs["bn1.num_batches_tracked"] = np.array(3)
    again = later.read(Source(theirs), shapes)
    assert all(np.array_equal(again[path], ours[path]) for path in ours)
