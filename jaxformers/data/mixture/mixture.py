"""Configuration of a mixture of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from jaxformers.data.mixture.rates import Rates, check_rates, task_shares
from jaxformers.errors import ConfigError, did_you_mean
from jaxformers.fields import CheckedFields, NonNegativeFloat, PositiveFloat, PositiveInt


class TaskExamples(Protocol):
    """A task's examples, opened."""

    fingerprint: dict[str, Any]

    def __len__(self) -> int: ...


class MixtureTask(CheckedFields):
    """Base class of the tasks of a mixture: each has its source, prompt, features and metric."""

    def open(self) -> TaskExamples:
        """The task's examples.

        Raises:
            DataError: they are missing; the message says from where they come.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class MixtureEntry(CheckedFields):
    """A task, the name that logs and messages call it by, and its weight."""

    name: str
    task: MixtureTask
    weight: NonNegativeFloat = 1.0
    """Multiplies the rate that follows from the number of examples; 0: not drawn."""

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.name, str):
            raise ConfigError(f"the name of a task is {self.name!r}, not a text")
        if not isinstance(self.task, MixtureTask):
            raise ConfigError(
                f"the task {self.name} is {self.task!r:.80}: give a task, such as VQA(...), or a "
                "pair of a task and its weight"
            )


@dataclass(frozen=True)
class Group(CheckedFields):
    """Tasks that have a share of the mixture together, and divide it by rates of their own."""

    tasks: tuple[str, ...]
    share: PositiveFloat
    """Relative to the shares of the other groups."""
    rates: Rates | None = None
    """None: the mixture's."""
    cap: PositiveInt | None = None
    """None: the mixture's."""

    def __post_init__(self):
        super().__post_init__()
        check_rates(self.rates)
        if not self.tasks:
            raise ConfigError("a group has at least one task")


@dataclass(frozen=True)
class RateChange(CheckedFields):
    """Weights from a step on; tasks that are not named keep theirs."""

    step: PositiveInt
    weights: tuple[tuple[str, NonNegativeFloat], ...]
    """(name, weight); a dictionary is taken too."""

    def __post_init__(self):
        if isinstance(self.weights, Mapping):
            object.__setattr__(self, "weights", tuple(self.weights.items()))
        super().__post_init__()
        for pair in self.weights:
            is_pair = isinstance(pair, tuple) and len(pair) == 2
            if not is_pair or [isinstance(value, str) for value in pair] != [True, False]:
                raise ConfigError(f"weights hold {pair!r:.80}, not a pair of a name and a weight")


@dataclass(frozen=True)
class Mixture(CheckedFields):
    """Tasks and the rates by which they are drawn.

    Mixture({"vqa": (VQA(...), 2.0), "caption": Captioning(...)}, rates="sqrt")
    """

    entries: tuple[MixtureEntry, ...]
    """A dictionary of names and tasks, or of names and (task, weight), is taken too."""
    rates: Rates = "proportional"
    cap: PositiveInt | None = None
    """Examples beyond which a task counts as no larger."""
    groups: tuple[Group, ...] = ()
    """Empty: all tasks are one group. Else every task is in one of them."""
    changes: tuple[RateChange, ...] = ()
    """In the order of their steps."""
    without_missing: bool = False
    """Whether tasks whose data are missing are left out, in place of an error that lists them."""

    def __post_init__(self):
        if isinstance(self.entries, Mapping):
            object.__setattr__(self, "entries", tuple(_entries(self.entries)))
        super().__post_init__()
        check_rates(self.rates)
        if not self.entries:
            raise ConfigError("a mixture has at least one task")
        for name, cls in (("entries", MixtureEntry), ("groups", Group), ("changes", RateChange)):
            for value in getattr(self, name):
                if not isinstance(value, cls):
                    raise ConfigError(f"{name} hold {value!r:.80}, not a {cls.__name__}")
        _refuse_repeated("the mixture", self.names)
        if self.groups:
            members = [name for group in self.groups for name in group.tasks]
            self._check_names("groups", members)
            _refuse_repeated("the groups", members)
            if missing := [name for name in self.names if name not in members]:
                raise ConfigError(f"the task {missing[0]} is in no group: name it in one of them")
        steps = [change.step for change in self.changes]
        if steps != sorted(set(steps)):
            raise ConfigError(f"changes are at the steps {steps}: order them, one for a step")
        for change in self.changes:
            self._check_names("changes", [name for name, _ in change.weights])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tasks, in order."""
        return tuple(entry.name for entry in self.entries)

    def entry(self, name: str) -> MixtureEntry:
        """The entry of the task `name`.

        Raises:
            ConfigError: there is none; the message names those that there are.
        """
        self._check_names("the mixture", [name])
        return self.entries[self.names.index(name)]

    def shares(self, sizes: Mapping[str, int]) -> list[tuple[int, Float[np.ndarray, "T"]]]:
        """(first step, shares of the tasks in `sizes`), the first from step 0 on.

        Args:
            sizes: examples of each task that has data; the others are left out.

        Raises:
            ConfigError: every task of a mixture or of a group has the weight 0.
        """
        weights = {entry.name: entry.weight for entry in self.entries}
        shares = [(0, self._shares(sizes, weights))]
        for change in self.changes:
            weights |= dict(change.weights)
            shares.append((change.step, self._shares(sizes, weights)))
        return shares

    def _shares(self, sizes: Mapping[str, int], weights: Mapping[str, float]) -> np.ndarray:
        groups = self.groups or (Group(self.names, 1.0),)
        shares = dict.fromkeys(sizes, 0.0)
        for group in groups:
            members = [name for name in group.tasks if name in sizes]
            # A group without data, or without weight from some step on, leaves its share.
            if not any(weights[name] for name in members):
                continue
            divided = task_shares(
                [sizes[name] for name in members],
                [weights[name] for name in members],
                self.rates if group.rates is None else group.rates,
                self.cap if group.cap is None else group.cap,
            )
            shares |= dict(zip(members, (group.share * divided).tolist(), strict=True))
        return task_shares([1] * len(shares), list(shares.values()), "equal")

    def _check_names(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.names:
                raise ConfigError(
                    f"{where}: there is no task {name!r}, only {', '.join(self.names)}"
                    f"{did_you_mean(name, self.names)}"
                )


def _entries(table: Mapping[str, Any]) -> Iterable[MixtureEntry]:
    for name, value in table.items():
        # Of a tuple that is no pair, MixtureEntry says what it takes.
        is_pair = isinstance(value, tuple) and len(value) == 2
        yield MixtureEntry(name, *value) if is_pair else MixtureEntry(name, value)


def _refuse_repeated(where: str, names: Sequence[str]) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"{where} name the task {name} {count} times: name it once")
