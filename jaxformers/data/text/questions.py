"""Questions whose answer is a span of a text, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from jaxformers.errors import DataError

SHOWN = 40  # characters of a text that a message quotes
Mismatched = Literal["error", "skip"]


class Question(NamedTuple):
    """A question about a context, and the spans of the context that answer it."""

    id: str
    title: str
    context: str
    question: str
    answers: tuple[str, ...]
    """What annotators marked; nothing where there is no answer."""
    starts: tuple[int, ...]
    """Where each answer begins in the context, in characters."""
    impossible: bool | None
    """Whether the context holds no answer (SQuAD 2.0); None: the question is not labelled."""


class Questions(Sequence[Question]):
    """Checked questions held in memory, each context once.

    `fingerprint` tells the set apart from any other: `source` (its name), `questions` (how many)
    and `content` (a hash). `mismatched` counts the questions left out because none of their
    answers stands where it is said to. `labelled` is false for a test set without answers.

    Args:
        questions: what the source read.
        name: of the source, for messages and the fingerprint.
        mismatched: what to do with an answer that does not stand at its offset: refuse the set,
            or drop the answer, and a question left without one, and count it.

    Raises:
        DataError: nothing in it, two questions with one id, an answer that is not where it is
            said to be, a question without an answer that does not say so.
    """

    def __init__(self, questions: Iterable[Question], name: str, mismatched: Mismatched = "error"):
        self.mismatched = 0
        self._questions: list[Question] = []
        contexts: dict[str, str] = {}
        ids: set[str] = set()
        for question in questions:
            if question.id in ids:
                raise DataError(f"{name}: two questions have the id {_quoted(question.id)}")
            ids.add(question.id)
            checked = _checked(question, name, mismatched)
            if checked is None:
                self.mismatched += 1
                continue
            context = contexts.setdefault(checked.context, checked.context)
            self._questions.append(checked._replace(context=context))
        if not self._questions:
            raise DataError(f"{name} holds no question")
        unlabelled = [q.id for q in self._questions if q.impossible is None]
        if 0 < len(unlabelled) < len(self._questions):
            raise DataError(
                f"{name}: question {_quoted(unlabelled[0])} has no answers, but others have: give "
                'it "answers", or leave them out everywhere'
            )
        self.labelled: bool = not unlabelled
        self.fingerprint: Mapping[str, str | int] = {
            "source": name,
            "questions": len(self._questions),
            "content": _digest(self._questions),
        }

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index):
        return self._questions[index]

    @property
    def some_impossible(self) -> bool:
        """Whether some question has no answer, as in SQuAD 2.0."""
        return any(question.impossible for question in self._questions)


def _checked(question: Question, name: str, mismatched: Mismatched) -> Question | None:
    """The question with the answers that stand in its context; None where none is left."""
    if question.impossible is not False:
        return question._replace(answers=(), starts=())
    answers = list(zip(question.answers, question.starts, strict=True))
    good = [(a, s) for a, s in answers if s >= 0 and question.context[s : s + len(a)] == a]
    if mismatched == "error" and len(good) < len(answers):
        raise DataError(_mismatch(question, next(f for f in answers if f not in good), name))
    if good:
        return question._replace(
            answers=tuple(a for a, _ in good), starts=tuple(s for _, s in good)
        )
    if mismatched == "error":
        raise DataError(
            f"{name}: question {_quoted(question.id)} has no answer; "
            'one that cannot be answered says "is_impossible": true'
        )
    return None


def _mismatch(question: Question, answer: tuple[str, int], name: str) -> str:
    text, start = answer
    there = question.context[max(start, 0) :][: max(len(text), 1)]
    return (
        f"{name}: question {_quoted(question.id)}: the answer {_quoted(text)} does not stand at "
        f"offset {start} of its context ({_quoted(there) if there else 'nothing'} does); "
        "mend the offset, or set mismatched to skip"
    )


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def _digest(questions: Sequence[Question]) -> str:
    digest, context = hashlib.sha256(), None
    for question in questions:
        if question.context is not context:
            context = question.context
            digest.update(json.dumps(context).encode())
        digest.update(json.dumps(question._replace(context="")).encode())
    return digest.hexdigest()
