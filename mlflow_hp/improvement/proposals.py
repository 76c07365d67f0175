"""Proposals: what findings say, as values of the function's keywords."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.analysis.diagnosis import Change, Finding
from mlflow_hp.improvement.keywords import UnfitError, fitted_value, is_same
from mlflow_hp.improvement.vocabulary import keyword_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUGGESTED = "suggested_"
"""Prefix of the evidence of findings that name a value without a `Change`."""
NEXT_TRY = "next_try"
"""Name of the finding that weighs the others."""
HALF = "half of a change that went too far"
RATE_ALONE = "the learning rate alone, to see what it does"
LEAST_RATIO = 1.5
"""Least ratio of two numbers that are tried one after the other: closer ones give results that hardly differ."""


class KeywordChange(NamedTuple):
    """Change of one keyword.

    Attributes
    ----------
    keyword : str
        Its name.
    old : object
        Its value before.
    new : object
        Its value to try.

    Examples
    --------
    >>> from mlflow_hp.improvement import KeywordChange
    >>> KeywordChange("lr", 0.01, 0.1).text
    'lr 0.01 -> 0.1'
    """

    keyword: str
    old: Any
    new: Any

    @property
    def text(self) -> str:
        """The change in a few words."""
        return f"{self.keyword} {_text(self.old)} -> {_text(self.new)}"


class Proposal(NamedTuple):
    """Training to try next.

    Attributes
    ----------
    hyperparameters : dict of str to object
        Its keyword values.
    changes : tuple of KeywordChange
        What differs from the best training so far. Defaults to nothing: the start.
    finding : Finding or None
        Finding that led to it. Defaults to None: the start.
    note : str
        How it follows the finding, if not as it says. Defaults to nothing.

    Examples
    --------
    >>> from mlflow_hp.improvement import KeywordChange, Proposal
    >>> Proposal({"lr": 0.1, "epochs": 5}, (KeywordChange("lr", 0.01, 0.1),)).name, Proposal({"lr": 0.01}).name
    ('lr=0.1', 'start')
    """

    hyperparameters: dict[str, Any]
    changes: tuple[KeywordChange, ...] = ()
    finding: Finding | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Name of its run."""
        return ", ".join(f"{change.keyword}={_text(change.new)}" for change in self.changes) or "start"


def proposals(
    findings: Sequence[Finding],
    hyperparameters: Mapping[str, Any],
    defaults: Mapping[str, Any],
    *,
    stepwise: bool = False,
) -> Iterator[Proposal]:
    """Make a proposal of each finding whose change touches a keyword.

    Findings that are fine are not followed. One that weighs the others (``next_try``) comes first. Those of whose
    changes all can be made precede those of whose changes only some can: the changes of a finding are meant to be made
    together.

    Parameters
    ----------
    findings : sequence of Finding
        Findings of a training, the most important first.
    hyperparameters : mapping of str to object
        Its keyword values.
    defaults : mapping of str to object
        Values of keywords that it was not called with.
    stepwise : bool
        Whether the learning rate, if it is one of several changes, is changed alone before all of them. Defaults to
        False.

    Yields
    ------
    Proposal
        The most promising first.
    """
    values = {**defaults, **hyperparameters}
    partial: list[Proposal] = []
    for finding in sorted(findings, key=lambda each: each.name != NEXT_TRY):
        if finding.severity == "fine" and finding.change:
            continue
        new: dict[str, Any] = {}
        is_complete = True
        for change in changes_of(finding):
            keyword = keyword_of(change.parameter, values)
            if keyword is None:
                is_complete = False
                continue
            try:
                value = fitted_value(change, new.get(keyword, values[keyword]))
            except UnfitError:
                is_complete = False
                continue
            if not is_same(value, values[keyword]):
                new[keyword] = value
        if not new:
            continue
        changes = tuple(KeywordChange(keyword, values[keyword], value) for keyword, value in new.items())
        proposal = Proposal({**hyperparameters, **new}, changes, finding)
        rate = keyword_of("learning_rate", new)
        if stepwise and is_complete and len(new) > 1 and rate is not None:
            alone = KeywordChange(rate, values[rate], new[rate])
            yield Proposal({**hyperparameters, rate: new[rate]}, (alone,), finding, RATE_ALONE)
        if is_complete:
            yield proposal
        else:
            partial.append(proposal)
    yield from partial


def changes_of(finding: Finding) -> tuple[Change, ...]:
    """Read the changes of a finding; of one without, the values that its evidence suggests.

    Parameters
    ----------
    finding : Finding
        The finding.

    Returns
    -------
    tuple of Change
        Its changes, to be made together.
    """
    if finding.change:
        return finding.change
    evidence = finding.evidence.items()
    return tuple(
        Change(name.removeprefix(SUGGESTED), None, value) for name, value in evidence if SUGGESTED in name[:10]
    )


def halfway(proposal: Proposal) -> Proposal | None:
    """Propose half the way of a change of one number, on a logarithmic scale if it can be.

    Parameters
    ----------
    proposal : Proposal
        Proposal that went too far.

    Returns
    -------
    Proposal or None
        None if it changes anything else, or the two numbers are close.

    Examples
    --------
    >>> from mlflow_hp.improvement.proposals import KeywordChange, Proposal, halfway
    >>> halfway(Proposal({"lr": 1.0}, (KeywordChange("lr", 0.01, 1.0),))).hyperparameters
    {'lr': 0.1}
    """
    numbers = [(change.keyword, change.old, change.new) for change in proposal.changes]
    if len(numbers) != 1 or not all(_is_number(value) for value in numbers[0][1:]):
        return None
    keyword, old, new = numbers[0]
    is_log = old > 0 and new > 0
    if is_log and max(old / new, new / old) < LEAST_RATIO:
        return None
    middle: float = float(f"{math.sqrt(old * new) if is_log else (old + new) / 2:.3g}")
    value = round(middle) if isinstance(new, int) else middle
    if value in (old, new):
        return None
    changes = (KeywordChange(keyword, old, value),)
    return Proposal({**proposal.hyperparameters, keyword: value}, changes, proposal.finding, HALF)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
