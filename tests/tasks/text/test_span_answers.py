"""From logits to text: the best spans, the windows that count, and "no answer"."""

import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxformers.data.text.questions import Question, Questions
from jaxformers.data.text.squad import SquadJson
from jaxformers.data.text.windows import Windows, WindowSize
from jaxformers.errors import DataError
from jaxformers.tasks.text import span_answers
from jaxformers.tasks.text.span_answers import Answer, answer, best_answers, best_spans, null_scores
from jaxformers.text import WordPiece

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixtures"))

from span_items import items

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "xyz")]
LETTERS = WordPiece(PIECES)
REAL = os.environ.get("SQUAD_JSON")


SIZE = WindowSize(12, 3, 2)


def windows_of(*contexts, question="a b", size=SIZE):
    questions = [Question(str(n), "", c, question, (), (), True) for n, c in enumerate(contexts)]
    return Windows(Questions(questions, "made"), LETTERS, size, training=False)


def random_logits(windows, seed=0):
    shape = (len(windows), 2, windows.size.length)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def oracle(windows):
    """Logits that point at the right places, and at [CLS] where a window holds no answer."""
    logits = np.zeros((len(windows), 2, windows.size.length), np.float32)
    rows = np.arange(len(windows))
    logits[rows, 0, windows.labels[:, 0]] = logits[rows, 1, windows.labels[:, 1]] = 10.0
    return logits


def allowed_spans(windows, logits, q, longest):
    """Every allowed span of question q, best first, as the published rules say, in plain loops."""
    spans = []
    own = range(*windows.bounds[q : q + 2])
    for w in own:
        begin, first = windows.begin[w], windows.first[w]
        for start in range(windows.count[w]):
            position = first + start
            scores = [
                (min(position - f, f + n - 1 - position) + 0.01 * n, -window)
                for window, f, n in zip(own, windows.first[own], windows.count[own], strict=True)
                if f <= position < f + n
            ]
            if -max(scores)[1] != w:
                continue
            for end in range(start, min(start + longest, windows.count[w])):
                score = logits[w, 0, begin + start] + logits[w, 1, begin + end]
                spans.append((score, position, first + end))
    return sorted(spans, reverse=True)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_answers_are_those_of_a_search_over_all_spans(seed):
    contexts = [" ".join(np.random.default_rng(seed + k).choice(list("abcdefghij"), n))
                for k, n in enumerate((3, 9, 20, 41))]  # fmt: skip
    windows = windows_of(*contexts)
    logits = random_logits(windows, seed)
    best = best_answers(windows, logits, n_best=7, longest=4)
    for q, context in enumerate(contexts):
        expected = {}
        for score, first, last in allowed_spans(windows, logits, q, 4):
            text = context[2 * first : 2 * last + 1]
            expected.setdefault(text, Answer(text, float(score), 2 * first, 2 * last + 1))
        assert best[q][0] == next(iter(expected.values()))
        assert [candidate.score for candidate in best[q]] == sorted(
            (a.score for a in best[q]), reverse=True
        )
        assert len({candidate.text for candidate in best[q]}) == len(best[q])
        if len(set(context.split())) == len(context.split()):
            assert best[q] == list(expected.values())[:7]


def test_spans_of_a_window_are_ranked_and_bounded():
    rng = np.random.default_rng(3)
    start, end = rng.standard_normal((2, 5, 17)).astype(np.float32)
    start[:, :4], end[:, :4], end[:, 15:] = -np.inf, -np.inf, -np.inf
    best = best_spans(start, end, n_best=6, longest=5)
    for row in range(5):
        spans = [
            (start[row, s] + end[row, e], s, e)
            for s in range(17)
            for e in range(s, s + 5)
            if e < 17
        ]
        expected = sorted(spans, reverse=True)[:6]
        assert (
            list(zip(best.scores[row], best.starts[row], best.ends[row], strict=True)) == expected
        )


def test_equal_spans_come_in_the_order_of_the_text_and_none_is_none():
    best = best_spans(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32), 6, 2)
    assert list(zip(best.starts[0], best.ends[0], strict=True))[:5] == [
        (0, 0),
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 2),
    ]
    assert best.scores[0].tolist() == [0, 0, 0, 0, 0, -math.inf]


def test_question_special_tokens_and_padding_are_never_an_answer():
    windows = windows_of("c d")
    logits = np.full((1, 2, 12), 9.0, np.float32)
    logits[:, :, 4:6] = 0.0  # the context
    assert {candidate.text for candidate in best_answers(windows, logits)[0]} == {"c", "d", "c d"}


def test_a_span_counts_in_the_window_with_most_context_of_its_start():
    windows = windows_of("a b c d e f g h i j", question="a", size=WindowSize(9, 3, 1))
    logits = np.zeros((3, 2, 9), np.float32)
    # Piece 3 ("d") is shown by windows 0 and 1; window 0 has more on its smaller side.
    logits[1, :, 3] = 50.0
    logits[0, :, 3 + 3] = 20.0
    assert best_answers(windows, logits)[0][0] == Answer("d", 40.0, 6, 7)
    # Its end may have more context elsewhere: "d e" starts in window 0 and ends in it.
    logits[0, 1, 3 + 3], logits[0, 1, 3 + 4] = 0.0, 20.0
    assert best_answers(windows, logits)[0][0].text == "d e"


def test_no_answer_scores_the_least_of_the_windows():
    windows = windows_of("a b c d e f g h i j", "a")
    logits = random_logits(windows)
    sums = logits[:, 0, 0] + logits[:, 1, 0]
    assert null_scores(windows, logits).tolist() == [sums[:-1].min(), sums[-1]]


def test_a_context_without_a_piece_has_the_empty_answer():
    windows = windows_of(" \u200b ", "a")
    assert best_answers(windows, random_logits(windows))[0] == [Answer("", -math.inf, 0, 0)]


@pytest.mark.parametrize("lowercase", [True, False])
def test_oracle_logits_give_every_recoverable_answer_as_it_stands(lowercase):
    questions, kinds = items()
    texts = [text for q in questions for text in (q.context, q.question)]
    tokenizer = WordPiece.train(texts, 260 if lowercase else 300, lowercase)
    windows = Windows(questions, tokenizer, WindowSize(64, 16, 16), training=False)
    predictions = [best[0].text for best in best_answers(windows, oracle(windows))]
    right = np.array(
        [f == q.answers[0].strip() for f, q in zip(predictions, questions, strict=True)]
    )
    assert len(questions) == 500
    assert len(windows) > 2 * len(questions)
    assert (right == windows.exact).all()
    lost = [kinds[k] for k in np.flatnonzero(~right) if "\u200b" not in questions[k].answers[0]]
    assert set(lost) == {"inside"}  # the marked text ends inside a piece
    assert (~right).sum() == (65 if lowercase else 71)


@pytest.mark.skipif(not REAL, reason="set SQUAD_JSON to a file of SQuAD 1.1 or 2.0")
def test_oracle_logits_give_every_recoverable_answer_of_a_real_file():
    questions = SquadJson(REAL, mismatched="skip").open()
    texts = dict.fromkeys(text for q in questions for text in (q.context, q.question))
    windows = Windows(questions, WordPiece.train(texts, 8000), WindowSize(), training=False)
    predictions = [best[0].text for best in best_answers(windows, oracle(windows))]
    short = windows.spans[:, 1] - windows.spans[:, 0] < 30
    recoverable = np.flatnonzero(windows.exact & short)
    assert [predictions[k] for k in recoverable] == [
        questions[k].answers[0].strip() for k in recoverable
    ]
    answerable = sum(not q.impossible for q in questions)
    print(f"{len(recoverable)} of {answerable} answers are spans of at most 30 pieces")
    assert len(recoverable) > 0.99 * answerable


class StubModel:
    """A model that finds the piece `d` in a context, and [CLS] a little."""

    def __init__(self, positions=24):
        self.config, self.lengths = SimpleNamespace(max_length=positions), []

    def apply(self, variables, input_ids, token_type_ids, attention_mask):
        self.lengths.append(input_ids.shape[1])
        is_answer = (input_ids == 8) & (token_type_ids == 1) & (attention_mask == 1)
        first = (jnp.arange(input_ids.shape[1]) == 0)[None]
        logits = jnp.where(is_answer, 10.0, jnp.where(first, 6.0, 0.0))
        return SimpleNamespace(start_logits=logits, end_logits=logits)


def test_answers_to_given_questions_come_with_text_score_and_place():
    contexts = ["a b  d c", "a " * 40 + "d", "a b"]
    answers = answer(StubModel(), {}, LETTERS, ["c c"] * 3, contexts)
    assert answers[0] == Answer("d", 20.0, 5, 6)
    assert answers[1] == Answer("d", 20.0, 80, 81)
    assert answers[2].text
    unsure = answer(StubModel(), {}, LETTERS, ["c c"] * 3, contexts, null_threshold=0.0)
    assert unsure[:2] == answers[:2]
    assert unsure[2] == Answer("", 12.0, 0, 0)
    assert answer(StubModel(), {}, LETTERS, ["c"], ["a b"], null_threshold=12.0)[0].text
    assert answer(StubModel(), {}, LETTERS, [], []) == []


def test_short_texts_are_read_at_their_own_length():
    model = StubModel(512)
    assert answer(model, {}, LETTERS, ["c"] * 2, ["a d", "d b"])[1] == Answer("d", 20.0, 0, 1)
    assert answer(model, {}, LETTERS, ["c"], ["a " * 700 + "d"])[0] == Answer("d", 20.0, 1400, 1401)
    assert model.lengths == [16, 384]


def test_another_number_of_contexts_is_refused():
    with pytest.raises(DataError, match="2 questions but 1 contexts"):
        answer(StubModel(), {}, LETTERS, ["a", "b"], ["c"])


@pytest.mark.parametrize("positions", [8, 24, 384, 512])
def test_windows_fit_into_the_models_positions(positions):
    size = span_answers.default_size(positions)
    assert size.length == min(positions, 384)
    assert (size.stride, size.query_length) == (128, 64) or positions < 384
