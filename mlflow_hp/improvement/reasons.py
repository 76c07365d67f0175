"""Why a training was made: tags and the beginning of the description of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow

from mlflow_hp.tracking import runs
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.tracking.tags import CHANGE_TAG, DESCRIPTION_TAG, FINDING_TAG, RUN_NAME_TAG, TRAINING_TAG

if TYPE_CHECKING:
    from mlflow_hp.improvement.proposals import Proposal

LONGEST_NAME = 250
"""Most characters of a run's name: databases keep that many."""


def training_tags(number: int, proposal: Proposal) -> dict[str, str]:
    """Make the tags of a training's run: its name, the finding that led to it, and what it changed.

    Parameters
    ----------
    number : int
        Number of the training, 0 for the start.
    proposal : Proposal
        Its keyword values, and why.

    Returns
    -------
    dict of str to str
        Tags.

    Examples
    --------
    >>> from mlflow_hp.improvement import Proposal, training_tags
    >>> training_tags(0, Proposal({"lr": 0.1}))
    {'mlflow.runName': '0 start', 'mlflow_hp.training': '0'}
    """
    tags = {RUN_NAME_TAG: f"{number} {proposal.name}"[:LONGEST_NAME], TRAINING_TAG: str(number)}
    if proposal.finding is not None:
        tags[FINDING_TAG] = f"{proposal.finding.name}: {proposal.finding.verdict}"
        tags[CHANGE_TAG] = ", ".join(change.text for change in proposal.changes)
    return tags


def why(proposal: Proposal) -> str:
    """Say in a sentence or two why a training was made; empty for the start.

    Parameters
    ----------
    proposal : Proposal
        Its keyword values, and the finding that led to it.

    Returns
    -------
    str
        Text without markup.
    """
    finding = proposal.finding
    if finding is None:
        return ""
    if finding.cause and finding.cause not in finding.text:
        return f"{finding.cause[0].upper()}{finding.cause[1:].rstrip('.')}. {finding.text}"
    return f"{finding.verdict}: {finding.text}"


def describe_training(run_id: str, number: int, proposal: Proposal) -> None:
    """Put the finding that led to a training into the description of its run, after the result.

    Parameters
    ----------
    run_id : str
        Id of its run.
    number : int
        Number of the training, 0 for the start.
    proposal : Proposal
        Its keyword values, and why.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.improvement import Proposal, describe_training
    >>> with mlflow.start_run() as run:
    ...     describe_training(run.info.run_id, 0, Proposal({"lr": 0.1}))
    >>> mlflow.get_run(run.info.run_id).data.tags["mlflow.note.content"]
    '**The start of an improvement**: nothing was changed yet.'
    """
    if proposal.finding is None:
        beginning = "**The start of an improvement**: nothing was changed yet."
    else:
        changes = plain(", ".join(change.text for change in proposal.changes))
        note = f" ({proposal.note})" if proposal.note else ""
        reason = f"The finding that led to it: {plain(why(proposal))}"
        beginning = f"**Training {number} of an improvement**: {changes}{note}\n\n{reason}"
    rest = mlflow.MlflowClient().get_run(run_id).data.tags.get(DESCRIPTION_TAG, "")
    result, *others = rest.split("\n\n", 1)
    runs.set_description(run_id, "\n\n".join([result, beginning, *others]).strip())
