"""Sliding windows: their arrangement against a plain statement, and answers to pieces and back."""

import pickle
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jaxformers.data.pipeline.fixed_length import RowPlan, Rows, every_row
from jaxformers.data.text.questions import Question, Questions
from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.errors import ConfigError, DataError
from jaxformers.text import WordPiece, load_tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

import encoder_use
from span_items import items

SIZE = WindowSize(64, 16, 16)
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "xyz")]
LETTERS = WordPiece(PIECES)
JAPAN = WordPiece([*PIECES[:5], "japanese", "japan", "##ese", "(", ")", ".", "1895", "-", "the"])


def windows_of(*examples, size=SIZE, tokenizer=LETTERS, training=False):
    """Windows of (question, context, answer, start) or (question, context)."""
    questions = [
        Question(str(n), "", example[1], example[0], example[2:3], example[3:4], len(example) == 2)
        for n, example in enumerate(examples)
    ]
    return Windows(Questions(questions, "made"), tokenizer, size, training=training)


@pytest.fixture(scope="module")
def adversarial():
    questions, kinds = items()
    texts = [text for q in questions for text in (q.context, q.question)]
    tokenizer = WordPiece.train(texts, 260)
    return Windows(questions, tokenizer, SIZE, training=False), kinds, tokenizer


def test_a_window_is_cls_question_sep_context_sep_and_padding():
    windows = windows_of(("a b", "c d e", "d", 2), size=WindowSize(10, 4, 3))
    row = {name: values[0] for name, values in windows.gather(np.array([0])).items()}
    ids = LETTERS.encode(["a b", "c d e"])
    assert row["input_ids"].tolist() == [2, *ids[0], 3, *ids[1], 3, 0, 0]
    assert row["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert row["attention_mask"].tolist() == [1] * 8 + [0] * 2
    assert (row["starts"], row["ends"], row["window"]) == (5, 5, 0)
    assert {values.dtype for values in row.values()} == {np.dtype(np.int32)}


def test_robertas_windows_have_two_tokens_between_and_one_segment(tmp_path):
    encoder_use.folder("roberta", "encoder", tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    question, context = tokenizer.encode(["Who left", "The baker left at noon"])
    size = WindowSize(len(question) + 4 + 3, 2, len(question))
    example = ("Who left", "The baker left at noon", "left", 10)
    windows = windows_of(example, size=size, tokenizer=tokenizer)
    rows = windows.gather(np.arange(len(windows)))
    assert len(windows) > 1 and windows.used_length == size.length
    for ids, mask, first, count in zip(
        rows["input_ids"], rows["attention_mask"], windows.first, windows.count, strict=True
    ):
        expected = [0, *question, 2, 2, *context[first : first + count], 2]
        assert ids.tolist() == expected + [1] * (size.length - len(expected))
        assert mask.sum() == len(expected)
    assert not rows["token_type_ids"].any()
    for ids, start, end in zip(rows["input_ids"], rows["starts"], rows["ends"], strict=True):
        if end:
            assert tokenizer.decode(ids[start : end + 1]) == ["left"]
    assert (rows["ends"] > 0).any()
    with pytest.raises(ConfigError, match=r"no room .* and 4 special ones"):
        windows_of(example, size=WindowSize(8, 2, 4), tokenizer=tokenizer)


def test_questions_are_cut_and_windows_slide_to_the_end():
    context = " ".join("abcdefghij")
    windows = windows_of(("a b c d e", context), size=WindowSize(10, 3, 3))
    spans = [slice(f, f + n) for f, n in zip(windows.first, windows.count, strict=True)]
    assert spans == [slice(0, 4), slice(3, 7), slice(6, 10)]
    batch = windows.gather(np.arange(3))
    ids = np.array(LETTERS.encode([context])[0])
    assert batch["input_ids"][:, 1:4].tolist() == [LETTERS.encode(["a b c"])[0]] * 3
    assert batch["input_ids"][:, 5:9].tolist() == [ids[span].tolist() for span in spans]


def plain_windows(length, room, stride):
    """The published script's loop."""
    windows, start = [], 0
    while start < length:
        count = min(length - start, room)
        windows.append((start, count))
        if start + count == length:
            break
        start += min(count, stride)
    return windows


def plain_best(windows, position):
    """The published script's choice of the window with most context for a piece."""
    scores = [
        (min(position - start, start + count - 1 - position) + 0.01 * count, -rank)
        for rank, (start, count) in enumerate(windows)
        if start <= position < start + count
    ]
    return -max(scores)[1]


@pytest.mark.parametrize("seed", range(30))
def test_windows_and_most_context_are_those_of_the_published_loops(seed):
    rng = np.random.default_rng(seed)
    length, stride = int(rng.integers(8, 30)), int(rng.integers(1, 20))
    num_pieces = int(rng.integers(1, 80))
    size = WindowSize(length, stride, 4)
    context = " ".join(rng.choice(list("abcdefghij"), num_pieces))
    windows = windows_of(("a b", context), size=size)
    expected = plain_windows(num_pieces, length - 2 - 3, stride)
    assert list(zip(windows.first, windows.count, strict=True)) == expected
    best = [plain_best(expected, position) for position in range(num_pieces)]
    for rank, (start, stop) in enumerate(windows.best_context):
        assert [p for p in range(num_pieces) if best[p] == rank] == list(range(start, stop))
    starts, ends = windows.document(slice(0, len(windows)))
    assert starts.sum() == num_pieces
    assert (ends | ~starts).all()


def test_the_window_with_most_context_on_the_smaller_side_counts():
    # The example in the published script's comment, with letters for its words.
    windows = windows_of(("a", "a b c d e f g h i j"), size=WindowSize(9, 3, 1))
    assert windows.first.tolist() == [0, 3, 6]
    batch = windows.gather(np.arange(3))
    assert batch["input_ids"][1, 3:8].tolist() == LETTERS.encode(["d e f g h"])[0]
    assert windows.best_context.tolist() == [[0, 4], [4, 7], [7, 10]]


def test_most_context_takes_memory_by_the_pieces_not_by_their_square():
    windows = windows_of(("a", "a b c d " * 10_000), size=WindowSize(384, 128, 64))
    tracemalloc.start()
    starts = windows.best_context[:, 0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(starts) > 300 and (np.diff(starts) == 128)[1:-1].all() and peak < 4e6


def test_a_window_that_misses_part_of_the_answer_points_at_cls():
    windows = windows_of(("a", "a b c d e f g h", "d e", 6), size=WindowSize(8, 2, 1))
    assert windows.first.tolist() == [0, 2, 4]
    assert windows.labels.tolist() == [[0, 0], [4, 5], [0, 0]]


def test_an_impossible_question_points_at_cls_and_is_learned():
    windows = windows_of(("a", "a b c"), ("a", "a b c", "b", 2), training=True)
    assert windows.labels.tolist() == [[0, 0], [4, 4]]
    assert windows.skipped == 0


@pytest.mark.parametrize(
    ("answer", "start", "spelled", "exact"),
    [
        ("japan", 4, "japan", True),
        ("ese", 9, "ese", True),
        ("1895", 14, "1895", True),
        ("(1895-", 13, "(1895-", True),
        ("895", 15, "1895", False),
        (" 1895", 13, None, None),
    ],
)
def test_an_answer_within_a_word_keeps_to_the_pieces_that_spell_it(answer, start, spelled, exact):
    tokenizer = WordPiece([p for p in JAPAN.vocabulary if p != "japanese"])
    context = "the japanese (1895-1895)."
    if spelled is None:
        answer, spelled, start, exact = " (1895", "(1895", 12, True
    windows = windows_of(("the", context, answer, start), tokenizer=tokenizer)
    begin, end = windows.characters(0, *windows.labels[0])
    assert context[begin:end] == spelled
    assert windows.exact[0] == exact


def test_an_answer_within_one_piece_is_answered_by_the_piece_and_not_by_its_neighbours():
    windows = windows_of(("the", "the (japanese).", "japan", 5), tokenizer=JAPAN)
    begin, end = windows.characters(0, *windows.labels[0])
    assert "the (japanese)."[begin:end] == "japanese"
    assert not windows.exact[0]


def test_a_repeated_answer_is_found_where_it_was_marked():
    windows = windows_of(("a", "d a-d d", "d", 4))
    assert windows.characters(0, *windows.labels[0]) == (4, 5)


def test_answers_of_all_kinds_come_back_as_they_stand(adversarial):
    windows, kinds, _ = adversarial
    lost = Counter()
    for q, (question, kind) in enumerate(zip(windows.asked, kinds, strict=True)):
        answer = question.answers[0]
        holding = [w for w in range(*windows.bounds[q : q + 2]) if windows.labels[w].any()]
        assert bool(holding) == (windows.spans[q, 0] >= 0)
        texts = set()
        for window in holding:
            begin, end = windows.characters(window, *windows.labels[window])
            texts.add(question.context[begin:end])
        assert windows.exact[q] == (texts == {answer.strip()})
        if not windows.exact[q]:
            lost["hidden" if answer.strip("\u200b") != answer else kind] += 1
    # Of 500: cut inside a piece, or with a character at an end that no piece holds. No other.
    assert lost == {"inside": 42, "hidden": 23}


def test_answers_without_any_piece_are_left_out_of_training_alone(adversarial):
    examples = [("a", "a b \u200b c", "\u200b", 4), ("a", "a b", "b", 2), ("a", "a  b", " ", 1)]
    training = windows_of(*examples, training=True)
    assert training.skipped == 2
    assert [q.id for q in training.asked] == ["1"]
    assert training.gather(np.array([0]))["input_ids"][0, :7].tolist() == [2, 5, 3, 5, 6, 3, 0]
    assert len(windows_of(*examples).asked) == 3
    with pytest.raises(DataError, match="no question to learn from"):
        windows_of(examples[0], training=True)


def test_a_context_without_a_piece_still_has_a_window():
    windows = windows_of(("a", " \u200b "), ("", "b"))
    assert windows.bounds.tolist() == [0, 1, 2]
    batch = windows.gather(np.arange(2))
    assert batch["input_ids"][:, :5].tolist() == [[2, 5, 3, 3, 0], [2, 3, 6, 3, 0]]
    starts, ends = windows.document(slice(0, 2))
    assert (starts.sum(1).tolist(), ends.sum(1).tolist()) == ([0, 1], [0, 1])


def test_windows_serve_shuffled_batches_and_every_row_once(adversarial):
    windows, _, _ = adversarial
    assert isinstance(windows, Rows)
    plan = RowPlan(windows, 8)
    half = plan.batch(windows, 3, 5, slice(4, 8))
    batch = plan.batch(windows, 3, 5)
    assert all((batch[name][4:] == half[name]).all() for name in batch)
    indices = [b["window"][:real] for b, real in every_row(windows, 50)]
    assert np.concatenate(indices).tolist() == list(range(len(windows)))


def test_windows_travel_to_worker_processes(adversarial):
    windows, _, _ = adversarial
    again = pickle.loads(pickle.dumps(windows))
    batch, batch_again = (store.gather(np.arange(9)) for store in (windows, again))
    assert all((batch[name] == batch_again[name]).all() for name in batch)


def test_the_fingerprint_tells_tokenizers_and_sizes_apart():
    example = ("a", "a b", "b", 2)
    sizes = (SIZE, WindowSize(64, 17, 16), WindowSize(64, 16, 15))
    fingerprints = [windows_of(example, size=size).fingerprint for size in sizes]
    fingerprints.append(windows_of(example, tokenizer=JAPAN).fingerprint)
    assert len({str(fingerprint) for fingerprint in fingerprints}) == 4


@pytest.mark.parametrize("wrong", [(20, 128, 17), (384, 0, 64), (384, 128, -1)])
def test_windows_without_room_are_refused(wrong):
    with pytest.raises(ConfigError):
        WindowSize(*wrong)
