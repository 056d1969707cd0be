"""Rows of tagged sentences: labels at the first piece of each word, as by transformers."""

import json

import numpy as np
import pytest
import tag_use as use
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from jaxformers.data.text.tags.tagged_rows import UNLABELLED, TaggedRows, first_pieces
from jaxformers.data.text.tags.tagged_sentences import TaggedSentences
from jaxformers.errors import DataError
from jaxformers.text import Spans, load_tokenizer

NAMES = ("O", "B-X", "I-X")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(use.folder("entities", tmp_path_factory.mktemp("tokenizer")))


def tagged(sentences):
    tags = [["B-X" if i % 2 else "O" for i in range(len(words))] for words in sentences]
    return TaggedSentences("made up", sentences, tags, "IOB2")


def test_the_first_piece_of_each_word_is_labelled_as_by_transformers(tokenizer):
    rows = TaggedRows.build(tagged(use.SENTENCES), NAMES, tokenizer, 32)
    batch = rows.gather(np.arange(3))
    golden = json.loads(use.GOLDEN.read_text())["first_tokens"]
    for row, (ids, firsts) in enumerate(golden):
        size = len(ids)
        assert batch["input_ids"][row, :size].tolist() == ids
        assert batch["input_ids"][row, size:].tolist() == [tokenizer.pad_id] * (32 - size)
        assert batch["attention_mask"][row].sum() == size
        assert rows.words[row].tolist() == firsts
        labels = np.full(32, UNLABELLED)
        for word, first in enumerate(firsts):
            if first >= 0:
                labels[first] = word % 2
        assert batch["labels"][row].tolist() == labels.tolist()
    assert not batch["token_type_ids"].any() and rows.cut == 0


def test_a_long_sentence_is_cut_and_the_words_behind_have_no_position(tokenizer):
    rows = TaggedRows.build(tagged([["the", "bakers", "left"]]), NAMES, tokenizer, 5)
    batch = rows.gather(np.zeros(1, int))
    assert rows.cut == 1 and rows.words[0].tolist() == [1, 2, -1]
    assert batch["labels"].tolist() == [[-1, 0, 1, -1, -1]]
    assert batch["input_ids"][0, -1] == tokenizer.sep_id


def test_pieces_of_byte_level_pairs_belong_to_their_words():
    # Pieces of "a bc d" whose offsets take in the blank before a word, as without trimming.
    backend = Tokenizer(models.BPE({"a": 0, "Ġ": 1, "b": 2, "c": 3, "d": 4, "Ġb": 5}, [("Ġ", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for trimmed in (False, True):
        backend.post_processor = processors.ByteLevel(trim_offsets=trimmed)
        encoding = backend.encode("a bc d")
        assert encoding.tokens == ["a", "Ġb", "c", "Ġ", "d"]
        spans = Spans(encoding.ids, *np.array(encoding.offsets).T)
        assert first_pieces(["a", "bc", "d"], spans).tolist()[:2] == [0, 1]


def test_a_tag_that_the_model_has_not_is_refused(tokenizer):
    sentences = TaggedSentences("dev.txt", [["a"]], [["B-Y"]], "IOB2")
    with pytest.raises(DataError, match=r"dev\.txt has the tag 'B-Y', but .* are O, B-X, I-X: set"):
        TaggedRows.build(sentences, NAMES, tokenizer, 8)


def test_the_fingerprint_follows_words_tags_classes_and_length(tokenizer):
    sentences = tagged([["the", "river"]])
    prints = [
        TaggedRows.build(sentences, NAMES, tokenizer, 8).fingerprint,
        TaggedRows.build(sentences, NAMES, tokenizer, 9).fingerprint,
        TaggedRows.build(sentences, (*NAMES, "B-Z"), tokenizer, 8).fingerprint,
        TaggedRows.build(tagged([["the", "bank"]]), NAMES, tokenizer, 8).fingerprint,
    ]
    assert all(a != b for i, a in enumerate(prints) for b in prints[:i])
