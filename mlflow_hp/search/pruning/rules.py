"""Rules of pruning: what they judge, and which one a search gets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_hp.errors import UserError
from mlflow_hp.search.pruning.bounds import upper_bound
from mlflow_hp.search.pruning.exact import ExactRule
from mlflow_hp.search.pruning.tested import PairedTestRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mlflow_hp.search.pruning.judgement import Judgement

RULES = ("exact", "tested")
"""Names of the rules."""


class Rule(Protocol):
    """Judges which candidates lose their other folds."""

    def cannot_judge(self, params: Mapping[str, Any]) -> str | None:
        """Say why candidates like the one with these parameters cannot be judged; None if they can."""

    def judge(self, scores: np.ndarray, n_best: int) -> Judgement:
        """Judge the candidates by `scores` of shape (n_candidates, n_splits), nan where unknown; `n_best` must stay."""


def check_prune(prune: Any) -> None:
    """Raise a UserError unless `prune` names a rule, or is None."""
    if prune is not None and prune not in RULES:
        raise UserError(
            f"prune={prune!r} is unknown; choose 'exact' (the same best candidate for sure), 'tested' (fewer fits), or "
            "None to compute every fit"
        )


def rule_for(prune: str | None, search: Any) -> tuple[Rule | None, str]:
    """Make the rule for a search.

    Returns
    -------
    rule : Rule or None
        None if nothing is pruned.
    reason : str
        Why, if a rule was named and nothing is pruned.
    """
    if prune is None:
        return None, ""
    if callable(search.refit):
        return None, "refit is a function, which may choose any candidate"
    if isinstance(search.scoring, (list, tuple, set, dict)) and not isinstance(search.refit, str):
        return None, "refit names none of the several scorers"
    if prune == "tested":
        return PairedTestRule(), ""
    bound, reason = upper_bound(search)
    if math.isinf(bound):
        return None, reason
    return ExactRule(bound, judges_estimators=search.scoring is not None), ""
