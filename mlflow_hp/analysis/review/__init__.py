"""Review of a finished search: what is wrong with it, what to do, and the next search space.

The rules are those of Google's Deep Learning Tuning Playbook [1]_. Each is a small function, with its threshold as a
constant and its source in the docstring.

.. [1] Godbole, Dahl, Gilmer, Shallue and Nado, "Deep Learning Tuning Playbook", 2023,
   https://github.com/google-research/tuning_playbook
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.analysis.diagnosis.finding import Finding, Findings, by_severity
from mlflow_hp.analysis.review.curves import length_findings, overfit_findings, variance_findings
from mlflow_hp.analysis.review.edges import edge_findings
from mlflow_hp.analysis.review.effects import effect_findings, interaction_findings, interactions, without_effect
from mlflow_hp.analysis.review.grid_file import to_yaml
from mlflow_hp.analysis.review.infeasible import infeasible_findings
from mlflow_hp.analysis.review.material import material
from mlflow_hp.analysis.review.next_space import n_combinations, next_space
from mlflow_hp.analysis.review.nuisance import nuisance_findings
from mlflow_hp.analysis.review.power import power_findings, splits_needed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from mlflow_hp.analysis.search_results import SearchResults

__all__ = ["RULES", "Review", "n_combinations", "review", "splits_needed", "to_yaml"]

RULES = (
    infeasible_findings,
    edge_findings,
    nuisance_findings,
    length_findings,
    overfit_findings,
    variance_findings,
    power_findings,
    effect_findings,
    interaction_findings,
)
"""Each gets the `Material` of a search, and returns findings."""


class Review(NamedTuple):
    """Review of a search.

    Attributes
    ----------
    findings : Findings
        What is wrong and what to do, problems first; none of a search that is as it should be.
    next_space : dict of str to list or dict, or None
        Parameter -> the values to try next, or ``{"low": ..., "high": ..., "log": ...}``; None if nothing varied or too
        few candidates have scores.
    remarks : tuple of str
        What the next space lacks, in sentences. Defaults to none.
    """

    findings: list[Finding]
    next_space: dict[str, Any] | None
    remarks: tuple[str, ...] = ()


def review(
    results: SearchResults,
    *,
    failed: np.ndarray | None = None,
    curves: Mapping[int, Sequence[Mapping[str, np.ndarray]]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    test_to_train: float | None = None,
    chance: float | None = None,
) -> Review:
    """Review a finished search by the rules of the Deep Learning Tuning Playbook.

    Parameters
    ----------
    results : SearchResults
        Results of the search.
    failed : ndarray of bool, shape (n_candidates,), optional
        Which of the candidates without a score failed or diverged; the others were given up for another reason.
        Defaults to all of them.
    curves : mapping of int to sequence of mapping, optional
        Candidate (0-based) -> for each fold, ``val_loss`` and ``loss`` by epoch, as arrays of shape (n_epochs,).
        Defaults to none: rules about curves are left out.
    fixed : mapping, optional
        Parameters of the estimator that the search did not set, such as the learning rate. Defaults to none.
    test_to_train : float, optional
        Size of a test fold over size of a training fold. Defaults to that of k-fold, 1 / (n_splits - 1).
    chance : float, optional
        Score of guessing. Defaults to unknown: candidates that collapsed are recognised by their scores.

    Returns
    -------
    Review
        Findings and the next space; both empty for fewer than three candidates with all their scores.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis import from_cv_results
    >>> from mlflow_hp.analysis.review import review
    >>> rng, rates = np.random.default_rng(0), [1e-5, 1e-4, 1e-3, 1e-2]
    >>> means = np.array([0.5, 0.6, 0.7, 0.8])
    >>> scores = {f"split{i}_test_score": means + 0.01 * rng.normal(size=4) for i in range(5)}
    >>> search = from_cv_results({"params": [{"learning_rate": rate} for rate in rates], **scores})
    >>> review(search).next_space
    {'learning_rate': [0.001, 0.01, 0.1, 1.0]}
    """
    seen = material(results, failed, curves, test_to_train, chance)
    if seen is None:
        return Review(Findings(), None)
    seen = seen._replace(interactions=tuple(interactions(seen)))
    seen = seen._replace(idle=tuple(without_effect(seen)))
    findings = Findings(by_severity([finding for rule in RULES for finding in rule(seen)]))
    if not results.parameters:
        return Review(findings, None)
    proposed = next_space(seen, findings, fixed or {})
    if proposed is None:
        return Review(findings, None)
    return Review(findings, proposed.space, tuple(proposed.remarks))
