import itertools
import pickle

import numpy as np
import pytest
from corpora import FIRST, SPECIAL, numbered_documents, random_documents, texts_of, unmasked

from jaxformers.data import (
    ListedDocuments,
    Phase,
    Plan,
    Pretraining,
    SpecialPieces,
    TokenizedDocuments,
    batches,
    describe_example,
    split_sentences,
)
from jaxformers.data.pretraining import examples as pretraining
from jaxformers.data.pretraining.next_sentence import sentence_pairs
from jaxformers.data.pretraining.sentence_chunks import packed_chunks
from jaxformers.errors import ConfigError

STORE = random_documents(60)
CONFIGS = {
    "pairs": Pretraining((Phase(32, 8, 5, steps=20), Phase(64, 4, 10))),
    "whole words": Pretraining((Phase(32, 8, 5),), whole_words=True),
    "chunks": Pretraining((Phase(32, 8, 5, steps=20), Phase(64, 4, 10)), next_sentence=False),
}
ONE_SHAPE = Pretraining((Phase(32, 8, 5),))


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def read(plan, count, **options):
    iterator = batches(STORE, plan, seed=11, **options)
    result = list(itertools.islice(iterator, count))
    iterator.close()
    return result


def assert_equal(first, second):
    assert len(first) == len(second)
    for first_batch, second_batch in zip(first, second, strict=True):
        assert first_batch.keys() == second_batch.keys()
        assert all(np.array_equal(first_batch[name], second_batch[name]) for name in first_batch)


def test_batches_have_the_shapes_that_the_plan_names(config):
    plan = config.plan(STORE)
    assert isinstance(plan, Plan)
    for step in (0, 19, 20, 35):
        batch = plan.batch(STORE, 0, step)
        shapes = plan.shapes[plan.phase(step)]
        assert {name: (array.shape, array.dtype) for name, array in batch.items()} == shapes
        assert plan.rows(0, step) == len(batch["input_ids"])


def test_the_second_phase_begins_at_its_step_and_the_last_never_ends():
    plan = CONFIGS["pairs"].plan(STORE)
    lengths = [plan.batch(STORE, 0, step)["input_ids"].shape[1] for step in (0, 19, 20, 500)]
    assert lengths == [32, 32, 64, 64]
    assert [plan.rows(0, step) for step in (19, 20)] == [8, 4]


def test_a_phase_begins_with_its_own_first_rows_however_long_the_one_before():
    first = []
    for steps in (3, 20):
        phases = Phase(32, 8, 5, steps=steps), Phase(64, 4, 10)
        plan = Pretraining(phases, next_sentence=False).plan(STORE)
        first.append(unmasked(plan.batch(STORE, 0, steps)))
    assert np.array_equal(*first)


def test_a_later_start_gives_the_batches_of_the_uninterrupted_run(config):
    uninterrupted = read(config.plan(STORE), 75)
    assert_equal(read(config.plan(STORE), 60, start=15), uninterrupted[15:])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_read_what_one_host_reads(config, hosts):
    single_host = read(config.plan(STORE), 24)
    host_batches = [read(config.plan(STORE), 24, host=host, hosts=hosts) for host in range(hosts)]
    joined = [
        {name: np.concatenate([batch[name] for batch in step]) for name in step[0]}
        for step in zip(*host_batches, strict=True)
    ]
    assert_equal(joined, single_host)


def test_workers_give_the_batches_of_no_workers():
    plan = CONFIGS["pairs"].plan(STORE)
    assert_equal(read(plan, 8, start=16, workers=2), read(plan, 8, start=16))


def test_a_plan_that_was_sent_to_another_process_gives_the_same_batches(config):
    plan = config.plan(STORE)
    expected = [plan.batch(STORE, 1, step) for step in range(0, 60, 7)]
    copy, store = pickle.loads(pickle.dumps((plan, STORE)))
    assert_equal([copy.batch(store, 1, step) for step in range(0, 60, 7)], expected)


def test_rows_of_another_seed_step_or_phase_differ(config):
    plan = config.plan(STORE)
    kinds = [plan.batch(STORE, *which)["input_ids"] for which in [(0, 0), (1, 0), (0, 1)]]
    assert not np.array_equal(kinds[0], kinds[1])
    assert not np.array_equal(kinds[0], kinds[2])


def tokens_of_steps(plan, store, steps):
    return np.unique(np.concatenate([unmasked(plan.batch(store, 0, s)).ravel() for s in steps]))


def test_every_token_of_every_document_is_met_within_few_epochs():
    rng = np.random.default_rng(0)
    store = numbered_documents(*[rng.integers(1, 9, rng.integers(1, 40)) for _ in range(40)])
    for next_sentence in (True, False):
        plan = Pretraining((Phase(32, 8, 5),), next_sentence=next_sentence).plan(store)
        epochs = 4 if next_sentence else 1  # of pairs, tokens are cut at random
        tokens = tokens_of_steps(plan, store, range(round(epochs * plan.steps_per_epoch) + 2))
        assert set(range(FIRST, store.vocab_size)) <= set(tokens.tolist())


def test_epochs_mask_the_same_text_anew():
    store = numbered_documents([3, 4])
    plan = Pretraining((Phase(12, 1, 2),), short_sequences=0.0).plan(store)
    step_batches = [plan.batch(store, 0, step) for step in range(60)]
    first = [b for b in step_batches if texts_of(unmasked(b)[0]) == ([5, 6, 7], [8, 9, 10, 11])]
    assert len(first) > 10
    assert len({tuple(batch["masked_positions"][0]) for batch in first}) > 3


def test_steps_per_epoch_and_fill_are_about_what_is_read():
    plan = ONE_SHAPE.plan(STORE)
    assert plan.left_out == 0
    counts = [len(sentence_pairs(STORE.sentences, STORE.documents, 32, 0.1, k)) for k in range(20)]
    assert abs(np.mean(counts) / 8 / plan.steps_per_epoch - 1) < 0.1
    step_batches = [plan.batch(STORE, 3, step) for step in range(round(10 * plan.steps_per_epoch))]
    assert (
        abs(np.mean([batch["attention_mask"].mean() for batch in step_batches]) - plan.fill) < 0.03
    )


def test_the_length_of_an_epoch_is_estimated_from_the_first_documents_of_many(monkeypatch):
    full_plan = ONE_SHAPE.plan(STORE)
    monkeypatch.setattr(pretraining, "SAMPLED", 300)
    sampled_plan = ONE_SHAPE.plan(STORE)
    assert sampled_plan.steps_per_epoch != full_plan.steps_per_epoch
    assert abs(sampled_plan.steps_per_epoch / full_plan.steps_per_epoch - 1) < 0.2


def test_the_fingerprint_tells_documents_and_configurations_apart():
    def of(config, store):
        return store.fingerprint, config.plan(store).fingerprint

    assert of(ONE_SHAPE, STORE) == of(ONE_SHAPE, random_documents(60))
    assert of(ONE_SHAPE, STORE) != of(ONE_SHAPE, random_documents(60, seed=1))
    assert of(CONFIGS["pairs"], STORE) != of(CONFIGS["chunks"], STORE)


@pytest.mark.parametrize("next_sentence", [True, False])
@pytest.mark.parametrize(
    "documents",
    [[[1]], [[1], [1]], [[2, 3, 1]], [[500]], [[500, 1], [1, 700]], [[1] * 300], [[9]] * 20],
)
def test_the_smallest_and_the_oddest_documents_make_whole_batches(documents, next_sentence):
    store = numbered_documents(*documents)
    plan = Pretraining((Phase(16, 8, 3),), next_sentence=next_sentence).plan(store)
    for step in range(5):
        batch = plan.batch(store, 0, step)
        assert batch["input_ids"].shape == (8, 16)
        assert (batch["masked_weights"].sum(axis=1) >= 1).all()
        for row in unmasked(batch):
            if next_sentence:
                assert all(texts_of(row))


def test_packed_rows_hold_whole_chunks_of_one_document_each():
    plan = CONFIGS["chunks"].plan(STORE)
    text = STORE.ids.tobytes()
    for step in (0, 5, 30):
        batch = plan.batch(STORE, 0, step)
        ids = unmasked(batch)
        for row in range(len(ids)):
            segments = batch["segments"][row]
            assert ((segments > 0) == batch["attention_mask"][row]).all()
            assert (np.diff(segments[segments > 0]) >= 0).all()
            for segment in range(1, segments.max() + 1):
                here = segments == segment
                chunk = ids[row][here]
                assert (chunk[0], chunk[-1]) == (SPECIAL.cls, SPECIAL.sep)
                assert chunk[1:-1].tobytes() in text
                assert batch["positions"][row][here].tolist() == list(range(here.sum()))


def test_an_epoch_of_packed_rows_holds_every_token_once_and_is_dense():
    sizes = np.random.default_rng(0).integers(1, 12, (50, 20)).tolist()
    store = numbered_documents(*sizes, [3, 200, 4], [500])
    plan = Pretraining((Phase(64, 1, 10),), next_sentence=False).plan(store)
    rows = round(plan.steps_per_epoch)
    ids = np.concatenate([unmasked(plan.batch(store, 0, step)).ravel() for step in range(rows)])
    assert sorted(ids[ids >= FIRST]) == list(range(FIRST, store.vocab_size))
    assert plan.fill > 0.85


def test_no_epoch_cuts_chunks_like_another():
    cuts = {
        tuple(np.sort(packed_chunks(STORE.sentences, STORE.documents, 64, 0.0, 1, epoch).starts))
        for epoch in range(5)
    }
    assert len(cuts) == 5


def test_unusable_configurations_are_refused():
    for config, reason in [
        (Pretraining(()), "at least one phase"),
        (Pretraining((Phase(16, 8, 17),)), "max_predictions"),
        (Pretraining((Phase(), Phase())), "only the last phase"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            config.plan(STORE)


class Words:
    """A tokenizer of a given list of whole words."""

    vocabulary = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "my", "dog", "is", "cute", ".", "he")
    vocabulary += ("likes", "play", "##ing", "the", "end")
    vocab_size, pad_id, cls_id, sep_id, mask_id = len(vocabulary), 0, 1, 2, 3
    continues = np.array([token.startswith("##") for token in vocabulary])
    fingerprint = "words"

    def encode(self, texts):
        cut = [t.lower().replace(".", " .").replace("ing", " ##ing").split() for t in texts]
        return [[self.vocabulary.index(word) for word in words] for words in cut]


def test_my_dog_is_cute_is_the_papers_example(tmp_path):
    text = split_sentences("My dog is cute. He likes playing.")
    store = TokenizedDocuments.build(
        ListedDocuments([text, ["The end."]], "example"), Words(), tmp_path
    )
    assert store.special == SpecialPieces(0, 1, 2, 3)
    plan = Pretraining((Phase(16, 4, 3),), short_sequences=0.0).plan(store)
    described = [
        describe_example(plan.batch(store, 0, step), row, Words())
        for step in range(8)
        for row in range(4)
    ]
    tokens = ["[CLS]", "my", "dog", "is", "cute", ".", "[SEP]"]
    tokens += ["he", "likes", "play", "##ing", ".", "[SEP]"]
    examples = [example for example in described if example.original == tokens]
    example = next(example for example in examples if example.next_sentence)
    assert example.segment_ids == [0] * 7 + [1] * 6
    assert len(example.labels) == 2
    for position, label in example.labels.items():
        assert label == tokens[position]
    assert all(example.pieces[k] == tokens[k] for k in range(13) if k not in example.labels)
    assert str(example).splitlines()[-1] == "next    yes"
    assert any(not example.next_sentence for example in described)
