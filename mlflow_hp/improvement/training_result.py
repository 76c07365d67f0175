"""Results: of each training of an improvement, and of all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.improvement.scores import Scores

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.improvement.proposals import Proposal

START, BETTER, WORSE, SAME = "start", "better", "worse", "no real difference"
FAILED, UNCOMPARED = "failed", "not comparable"


class TrainingResult(NamedTuple):
    """One training.

    Attributes
    ----------
    proposal : Proposal
        Its keyword values, what was changed, and the finding that led to it.
    run_id : str
        Id of its run.
    findings : tuple of Finding
        What its diagnosis says, the most important first. Defaults to nothing.
    scores : Scores
        Its scores. Defaults to none.
    error : str
        Exception that ended it; empty if none did. Defaults to none.
    verdict : {"start", "better", "worse", "no real difference", "failed", "not comparable"}
        Compared with the best before it. Defaults to ``"start"``.
    compared_by : str
        Metric that it was compared by. Defaults to none.

    Examples
    --------
    >>> from mlflow_hp.improvement import Proposal, Scores, TrainingResult
    >>> training = TrainingResult(Proposal({"lr": 0.1}), "run id", scores=Scores({"val_loss": 0.5}))
    >>> training.hyperparameters, training.verdict
    ({'lr': 0.1}, 'start')
    """

    proposal: Proposal
    run_id: str
    findings: tuple[Finding, ...] = ()
    scores: Scores = Scores({})
    error: str = ""
    verdict: str = START
    compared_by: str = ""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Its keyword values."""
        return self.proposal.hyperparameters


class Improvement(NamedTuple):
    """Result of `improve`.

    Attributes
    ----------
    hyperparameters : dict of str to object
        Keyword values of the best training.
    run_id : str
        Id of its run.
    trainings : tuple of TrainingResult
        All trainings, the start first.
    parent_run_id : str
        Id of the run that they are nested in.
    text : str
        What was tried and what came of it, in words.
    returned : object
        What the function returned for the best training; None if that was taken over from an earlier run. Defaults to
        None.

    Examples
    --------
    >>> from mlflow_hp.improvement import Improvement
    >>> Improvement({"lr": 0.1}, "run id", (), "id of the parent", "The start is the best.").hyperparameters
    {'lr': 0.1}
    """

    hyperparameters: dict[str, Any]
    run_id: str
    trainings: tuple[TrainingResult, ...]
    parent_run_id: str
    text: str
    returned: Any = None
