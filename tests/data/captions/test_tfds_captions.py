"""`coco_captions` of TFDS as captioned images."""

import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from mocked_tfds import write

from jaxformers.data.captions import CaptionPlan, CaptionRows, TfdsCaptions
from jaxformers.data.images import Preprocessing
from jaxformers.errors import DataError
from jaxformers.text import CLIPTokenizer

FAULTY = 3


def features():
    """Those of `coco_captions`, whose builder needs TensorFlow."""
    kinds = tfds.features
    thing = {"bbox": kinds.BBoxFeature(), "label": kinds.ClassLabel(num_classes=80)}
    captions = {"text": np.str_, "id": np.int64}
    return kinds.FeaturesDict(
        {
            "image": kinds.Image(encoding_format="png"),
            "image/filename": kinds.Text(),
            "image/id": np.int64,
            "objects": kinds.Sequence(thing),
            "captions": kinds.Sequence(captions),
        }
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")

    def captioned(row, index):
        texts = [f"{row['image/filename']}, caption {n} \n" for n in range(index % 3 + 1)]
        texts = [" "] if index == FAULTY else texts
        return row | {"captions": [{"text": text, "id": n} for n, text in enumerate(texts)]}

    splits = {"train": 10, "restval": 4}
    write("coco_captions", "2014", "1.1.0", features(), folder, splits, captioned)
    return str(folder)


def test_an_image_has_its_captions(data_dir):
    images = TfdsCaptions(split="restval", data_dir=data_dir, skip_faulty=True).open()
    assert len(images) == 3 and images.skipped == 1
    counts = sorted(len(images.captions(index)) for index in range(3))
    assert counts == [1, 2, 3]
    for index in range(3):
        texts = images.captions(index)
        assert [text.rpartition(" ")[2] for text in texts] == [str(n) for n in range(len(texts))]
        assert np.asarray(images.image(index)).ndim == 3
    assert len(TfdsCaptions(split="train[:5]+restval", data_dir=data_dir).open()) == 9


def test_rows_of_batches_are_made_and_sent_to_other_processes(data_dir):
    images = TfdsCaptions(data_dir=data_dir, skip_faulty=True).open()
    rows = CaptionRows(images, Preprocessing(8), CLIPTokenizer(), 12)
    plan = CaptionPlan(rows, 6)
    batches = [plan.batch(store, 0, 1) for store in (rows, pickle.loads(pickle.dumps(rows)))]
    assert batches[0]["images"].shape == (6, 8, 8, 3) and batches[0]["input_ids"].shape == (6, 12)
    for name, array in batches[0].items():
        np.testing.assert_array_equal(batches[1][name], array)


def test_its_fingerprint_is_that_of_split_and_content(data_dir):
    prints = [
        TfdsCaptions(split=split, data_dir=data_dir).open().fingerprint["content"]
        for split in ("train", "train", "train[:9]")
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "coco_captions/2017"}, "jaxformers prepare coco_captions/2017"),
        ({"split": "validation"}, "it has train, restval"),
        ({"caption_key": "sentences"}, "has no feature sentences"),
        ({"text_key": "raw", "skip_faulty": True}, "set text_key"),
    ],
)
def test_what_is_not_there_is_named_in_a_line(changes, message, data_dir):
    with pytest.raises(DataError, match=message) as raised:
        TfdsCaptions(**{"data_dir": data_dir} | changes).open()
    assert "\n" not in str(raised.value)


def test_a_row_without_a_caption_is_refused_where_it_is_read(data_dir):
    images = TfdsCaptions(data_dir=data_dir).open()
    with pytest.raises(DataError, match="has no caption; leave such rows out with skip_faulty"):
        for index in range(len(images)):
            images.captions(index)
