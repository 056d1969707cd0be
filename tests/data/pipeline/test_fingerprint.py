import json

import pytest
from stores import random_store

from jaxformers.data import (
    Bucketing,
    ListedPairs,
    Packing,
    TokenizedPairs,
    differences,
)
from jaxformers.text import Tokenizer

STORE = random_store(50)
PLAN = Packing(24, 24, 4)


def saved_fingerprint(store, plan, seed):
    """What a checkpoint keeps of what its batches are a function of."""
    return {**store.fingerprint, "plan": plan.plan(store).fingerprint, "seed": seed}


def test_the_same_data_plan_and_seed_differ_in_nothing_after_json():
    now = saved_fingerprint(random_store(50), PLAN, 3)
    saved = json.loads(json.dumps(saved_fingerprint(STORE, PLAN, 3)))
    assert differences(saved, now) == []


@pytest.mark.parametrize(
    ("store", "plan", "seed", "says"),
    [
        (STORE, PLAN, 4, "data seed: 3 then, 4 now"),
        (STORE, Packing(24, 24, 8), 3, "batch plan: Packing("),
        (STORE, Bucketing(((4, 24, 24),)), 3, "Bucketing("),
        (random_store(51), PLAN, 3, "training pairs: 50 then, 51 now"),
        (random_store(50, seed=1), PLAN, 3, "content of the training data: "),
    ],
)
def test_what_changed_is_said_in_words(store, plan, seed, says):
    sentences = differences(saved_fingerprint(STORE, PLAN, 3), saved_fingerprint(store, plan, seed))
    assert any(says in sentence for sentence in sentences)
    assert all("\n" not in sentence for sentence in sentences)


def test_numbers_are_written_for_people():
    saved = {"pairs": 43_078, "content": "a"}
    assert differences(saved, {"pairs": 43_079, "content": "a"}) == [
        "training pairs: 43,078 then, 43,079 now"
    ]


def test_data_that_only_moved_are_the_same_data(tmp_path):
    class Words(Tokenizer):
        vocab_size, pad_id, eos_id, unk_id, start_id = 50, 0, 1, 2, 0
        fingerprint = "words"

        def encode(self, texts):
            return [[3] * len(text.split()) for text in texts]

        encode_target = encode

    saved, now = (
        saved_fingerprint(store, PLAN, 0)
        for store in (
            TokenizedPairs.build(ListedPairs([("a b", "c")], name), Words(), tmp_path / name)
            for name in ("here", "there")
        )
    )
    assert saved["source"] != now["source"]
    assert differences(saved, now) == []
