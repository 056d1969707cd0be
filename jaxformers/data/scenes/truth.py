"""Exact answers about a scene: captions, questions, relations, referring expressions."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from jaxformers.data.scenes.composition import Scene, SceneObject
from jaxformers.data.scenes.drawings import THINGS

NUMBERS = ("no", "one", "two", "three", "four", "five")
CLEAR_RATIO = 1.5  # of the two distances between objects, for "left of" or "above" to be clear
NINTHS = (
    ("at the upper left", "at the top", "at the upper right"),
    ("at the left", "in the middle", "at the right"),
    ("at the lower left", "at the bottom", "at the lower right"),
)
PLURALS = {thing.name: thing.plural for thing in THINGS}


class Question(NamedTuple):
    """A question with its one right answer; `kind` is `count`, `colour` or `presence`."""

    kind: str
    question: str
    answer: str


class Relation(NamedTuple):
    """`subject` and `object` are indices of objects: the subject is `predicate` the object."""

    subject: int
    predicate: str
    object: int


class Expression(NamedTuple):
    """A text that describes exactly one object, by its index."""

    text: str
    object: int


def captions(scene: Scene) -> tuple[str, ...]:
    """Captions of the scene: things with their numbers, and the ground; the first is canonical."""
    counts = thing_counts(scene)
    listed = _enumeration([counted(name, count) for name, count in counts.items()])
    verb = "is" if len(counts) == 1 and set(counts.values()) == {1} else "are"
    return (
        f"{listed} on {with_article(scene.ground.name)}",
        f"there {verb} {listed} on {with_article(scene.ground.name)}",
        f"{with_article(scene.ground.name)} with {listed}",
    )


def located_caption(scene: Scene) -> str:
    """Each thing with its ninth of the picture, the farthest first, and the ground.

    Such as `a cat at the upper left and a pear in the middle on a striped blue ground`.
    """
    side = len(scene.image)
    phrases = []
    for obj in scene.objects:
        column, row = (min(int(3 * centre / side), 2) for centre in obj.centre)
        phrases.append(f"{with_article(obj.name)} {NINTHS[row][column]}")
    return f"{_enumeration(phrases)} on {with_article(scene.ground.name)}"


def questions(scene: Scene, things: int) -> tuple[Question, ...]:
    """Questions on number, colour and presence, among them on one thing that is absent.

    Args:
        scene: asked about.
        things: how many of `THINGS` may occur.
    """
    counts = thing_counts(scene)
    absent = [thing.name for thing in THINGS[:things] if thing.name not in counts]
    asked = []
    for name, count in counts.items():
        asked.append(Question("count", f"how many {PLURALS[name]} are there ?", str(count)))
        asked.append(Question("presence", f"is there {with_article(name)} ?", "yes"))
    if absent:
        # Which absent thing is asked for follows from the scene alone.
        stranger = absent[sum(sum(obj.box) for obj in scene.objects) % len(absent)]
        asked.append(Question("count", f"how many {PLURALS[stranger]} are there ?", "0"))
        asked.append(Question("presence", f"is there {with_article(stranger)} ?", "no"))
    asked.append(Question("count", "how many things are there ?", str(len(scene.objects))))
    for obj in scene.objects:
        if counts[obj.name] == 1 and obj.drawing.colour:
            asked.append(Question("colour", f"what color is the {obj.name} ?", obj.drawing.colour))
    asked.append(Question("colour", "what color is the ground ?", scene.ground.colour))
    return tuple(asked)


def region_caption(scene: Scene, number: int) -> str:
    """An object in words: its colour where it is clear, its name, and what hides some of it."""
    obj = scene.objects[number]
    words = f"{obj.drawing.colour or ''} {obj.name}".strip()
    behind = (
        f" behind {with_article(scene.objects[obj.hidden_by[-1]].name)}" if obj.hidden_by else ""
    )
    return with_article(words) + behind


def relations(scene: Scene) -> tuple[Relation, ...]:
    """The relation of every ordered pair for which one is clear.

    An object that hides some of another is in front of it. Of pairs that do not touch, one is left
    of, right of, above or below the other if that distance is at least 1.5 times the other.
    """
    pairs = []
    for first, subject in enumerate(scene.objects):
        for second, target in enumerate(scene.objects):
            if first != second and (predicate := _predicate(subject, target, first, second)):
                pairs.append(Relation(first, predicate, second))
    return tuple(pairs)


def expressions(scene: Scene) -> tuple[Expression, ...]:
    """Texts that each describe exactly one object: by name, colour, or position among its like."""
    texts: list[Expression] = []
    counts = thing_counts(scene)
    coloured = Counter((obj.name, obj.drawing.colour) for obj in scene.objects)
    for number, obj in enumerate(scene.objects):
        if counts[obj.name] == 1:
            texts.append(Expression(f"the {obj.name}", number))
        elif obj.drawing.colour and coloured[obj.name, obj.drawing.colour] == 1:
            texts.append(Expression(f"the {obj.drawing.colour} {obj.name}", number))
    for name, count in counts.items():
        if count == 2:
            texts += _by_position(scene, name)
    return tuple(texts)


def _by_position(scene: Scene, name: str) -> list[Expression]:
    """ "the left cat" and "the right cat", or upper and lower, of the two that there are."""
    first, second = (i for i, obj in enumerate(scene.objects) if obj.name == name)
    (x1, y1), (x2, y2) = scene.objects[first].centre, scene.objects[second].centre
    dx, dy = x2 - x1, y2 - y1
    if abs(dx) >= CLEAR_RATIO * abs(dy):
        words, ordered = ("left", "right"), (first, second) if dx > 0 else (second, first)
    elif abs(dy) >= CLEAR_RATIO * abs(dx):
        words, ordered = ("upper", "lower"), (first, second) if dy > 0 else (second, first)
    else:
        return []
    return [
        Expression(f"the {word} {name}", number)
        for word, number in zip(words, ordered, strict=True)
    ]


def _predicate(subject: SceneObject, target: SceneObject, first: int, second: int) -> str | None:
    if first in target.hidden_by:
        return "in front of"
    if second in subject.hidden_by:
        return "behind"
    dx, dy = (a - b for a, b in zip(subject.centre, target.centre, strict=True))
    if abs(dx) >= CLEAR_RATIO * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= CLEAR_RATIO * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def thing_counts(scene: Scene) -> Counter[str]:
    """How many of each thing there are, the nearest thing first."""
    return Counter(obj.name for obj in reversed(scene.objects))


def _enumeration(phrases: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def counted(name: str, count: int) -> str:
    """`a cat`, `two cats`."""
    return with_article(name) if count == 1 else f"{NUMBERS[count]} {PLURALS[name]}"


def with_article(words: str) -> str:
    """`words` behind `a`, or `an` before a vowel."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
