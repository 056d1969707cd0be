"""`jf.tag` against transformers' pipeline, kept in `fixtures/tag_use.json`."""

import json

import bert_use
import encoder_use
import numpy as np
import pytest
import tag_use as use

import jaxformers as jf
from jaxformers.errors import ConfigError, DataError, WeightsError
from jaxformers.models import BertConfig
from jaxformers.tasks.text.tagging.tag_inference import entities
from jaxformers.text import Spans

GOLDEN = json.loads(use.GOLDEN.read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tags")
    folders = {name: use.folder(name, root / name) for name in use.CLASSES}
    families = encoder_use.FAMILIES
    return folders | {name: encoder_use.folder(name, "tags", root / name) for name in families}


@pytest.mark.parametrize("name", sorted([*use.CLASSES, *encoder_use.FAMILIES]))
def test_entities_are_those_of_transformers(name, folders):
    for aggregation in use.AGGREGATIONS:
        results = jf.tag(str(folders[name]), use.TEXTS, aggregation=aggregation, truncate=True)
        for text, row, expected in zip(use.TEXTS, results, GOLDEN[name][aggregation], strict=True):
            assert [(e.label, e.start, e.end) for e in row] == [(e[0], *e[2:]) for e in expected]
            np.testing.assert_allclose([e.score for e in row], [e[1] for e in expected], atol=5e-5)
            assert all(e.text == text[e.start : e.end] for e in row)


def test_one_text_and_no_text(folders):
    path = str(folders["entities"])
    assert jf.tag(path, use.TEXTS[2]) == jf.tag(path, [use.TEXTS[2]])
    assert jf.tag(path, []) == []
    assert jf.tag(path, ["", " \n"]) == [[], []]
    loaded = (*jf.from_pretrained(path), jf.load_text(path))
    assert jf.tag(loaded, use.TEXTS) == jf.tag(path, use.TEXTS)


def test_a_long_text_is_refused_or_cut(folders):
    text = "film " * 140
    with pytest.raises(DataError, match="text 1 has 142 tokens, but the model has 120 positions"):
        jf.tag(str(folders["types"]), text)
    (row,) = jf.tag(str(folders["types"]), text, truncate=True)
    assert 0 < row[-1].end <= 118 * 5


def test_what_cannot_be_tagged_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="no aggregation 'mean': choose simple, first"):
        jf.tag(str(folders["types"]), "a", aggregation="mean")
    with pytest.raises(WeightsError, match="without a classifier over tokens; tag needs a"):
        jf.tag(str(bert_use.folder("classes", tmp_path)), "a")


class Words:
    """A tokenizer whose tokens are words."""

    continuation_prefix, unk_id = "##", 0
    continues = np.zeros(99, bool)


@pytest.mark.parametrize("letters", ["BIES", "BILU"])
def test_a_model_of_iobes_or_bilou_has_its_entities_whole(letters):
    begin, inside, last, single = letters if letters == "BIES" else "BILU"
    names = ("O", *(f"{letter}-X" for letter in letters))
    tags = [f"{begin}-X", f"{inside}-X", f"{last}-X", f"{single}-X", f"{single}-X", "O"]
    text, scores = "a b c d e f", np.eye(5)[[names.index(tag) for tag in tags]]
    spans = Spans([1] * 6, np.arange(0, 12, 2), np.arange(1, 12, 2))
    config = BertConfig(labels=5, label_names=names)
    rows = entities(text, spans, scores, config, Words(), "first")
    assert [(e.text, e.label) for e in rows] == [("a b c", "X"), ("d", "X"), ("e", "X")]
