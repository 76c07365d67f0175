"""Training of the benchmark of the diagnosis: healthy, or with a fault and the same program without it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

HEALTHY = "healthy"
"""Kind of the cases without a fault."""

KINDS = (
    "last activation", "hidden activation", "learning rate", "epochs", "loss", "preprocessing", "layers", "optimizer",
    "batch size", "initialiser", "labels", "regularisation", "data", "callbacks", "schedule", "metrics",
)  # fmt: skip
"""Kinds of faults."""


Train = Callable[..., tuple[Any, dict[str, float]]]
"""Builds a model and fits it with callbacks; returns the model, and its score and loss on held-out data."""


class Case(NamedTuple):
    """One training.

    Attributes
    ----------
    name : str
        Distinct name; it alone decides which half the case is in.
    kind : str
        One of `KINDS`, or ``"healthy"``.
    train : Train
        The program. Its score, the more the better, and its loss are of data that it has not been trained on, computed
        in the same way with and without the fault.
    start : dict of str to object
        Keyword values of the training.
    causes : frozenset of str
        Names of `Change.parameter` that cure it. Empty for a healthy one.
    twin : dict of str to object, or None
        Keyword values without the fault. None for a healthy one.
    harm : {"score", "told"}
        Whether the fault hurts the score or the loss, or is one that no held-out number shows.
    by_keywords : bool
        Whether the keywords are hyperparameters, so that advice can be followed.
    is_new : bool
        Whether it was written after the rules, by somebody who had not seen them.
    """

    name: str
    kind: str
    train: Train
    start: dict[str, Any]
    causes: frozenset[str] = frozenset()
    twin: dict[str, Any] | None = None
    harm: Literal["score", "told"] = "score"
    by_keywords: bool = False
    is_new: bool = False

    @property
    def half(self) -> str:
        """``"new"``, or ``"tuning"`` or ``"held"`` by a hash of the name."""
        if self.is_new:
            return "new"
        return "held" if hashlib.sha256(self.name.encode()).digest()[0] % 2 else "tuning"

    @property
    def roles(self) -> tuple[str, ...]:
        """``"start"``, and ``"twin"`` if it has one."""
        return ("start",) if self.twin is None else ("start", "twin")

    def keywords(self, role: str) -> dict[str, Any]:
        """Keyword values of the training in a role."""
        return dict(self.start if role == "start" else self.twin or {})


def defaults(train: Train) -> dict[str, Any]:
    """Keyword values that a program has by itself."""
    parameters = inspect.signature(train).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def healthy(name: str, train: Train, /, **keywords: Any) -> Case:
    """Make a healthy case of a program with hyperparameters."""
    return Case(name, HEALTHY, train, defaults(train) | keywords, by_keywords=True)


def faulty(kind: str, name: str, train: Train, causes: str, faults: dict[str, Any], /, **others: Any) -> Case:
    """Make a case of a program with hyperparameters, some of them at fault; `others` are those of the twin, too."""
    twin = defaults(train) | others
    return Case(name, kind, train, twin | faults, frozenset(causes.split()), twin, by_keywords=True)


class Programs:
    """Cases whose programs have nothing to set: functions, collected by decorators; new ones, or not."""

    def __init__(self, *, are_new: bool = False) -> None:
        self.cases: list[Case] = []
        self._are_new = are_new

    def healthy(self, train: Any) -> Any:
        """Collect a healthy program ``train(callbacks)``."""
        self.cases.append(Case(_name(train), HEALTHY, train, {}, is_new=self._are_new))
        return train

    def faulty(self, kind: str, causes: str, harm: Literal["score", "told"] = "score") -> Any:
        """Collect a program ``train(callbacks, is_faulty)``."""

        def collect(train: Any) -> Any:
            case = Case(
                _name(train),
                kind,
                train,
                {"is_faulty": True},
                frozenset(causes.split()),
                {"is_faulty": False},
                harm,
                is_new=self._are_new,
            )
            self.cases.append(case)
            return train

        return collect


def _name(train: Any) -> str:
    return str(train.__name__).replace("_", " ").strip()


def checked(cases: Iterable[Case]) -> list[Case]:
    """All cases, by kind and name; names are distinct and kinds known."""
    collected = sorted(cases, key=lambda case: (case.kind != HEALTHY, case.kind, case.name))
    names = [case.name for case in collected]
    twice = {name for name in names if names.count(name) > 1}
    unknown = {case.kind for case in collected} - {HEALTHY, *KINDS}
    if twice or unknown:
        raise ValueError(f"cases of the same name: {sorted(twice)}; unknown kinds: {sorted(unknown)}")
    return collected
