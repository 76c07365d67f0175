"""Improvement of an experiment: train, follow the advice of its findings, and train again, in nested runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp.delivery import held
from mlflow_hp.improvement import (
    AdviceLoop,
    Scores,
    TrainingResult,
    describe_training,
    name_best,
    summary,
    table,
    training_tags,
)
from mlflow_hp.terminal import say
from mlflow_hp.tracking import plain, runs, tags
from projects import arguments
from projects.arguments import IMPROVE
from projects.experiment import command, ending, first_line
from projects.recorded import after_interrupt, look_at_first

if TYPE_CHECKING:
    from mlflow_hp.analysis import Finding
    from mlflow_hp.improvement import Proposal
    from projects.arguments import Settings
    from projects.experiment import Experiment, Outcome

ARRIVALS = ("arrival", "ending")
"""Findings on where the path of a descent ends."""


def improve(experiment: Experiment, settings: Settings, parent: Any, repeat: str) -> list[str]:
    """Train with `settings`, then as its findings advise, each in a nested run of `parent`; compare them in the parent.

    A training that fails becomes a FAILED run, and the next advice is followed; if the first one fails, its error is
    raised. `repeat` is the command that repeats it all.

    Returns
    -------
    list of str
        Findings in sentences.
    """
    return follow_advice(experiment, settings, parent, repeat)[1]


def follow_advice(experiment: Experiment, settings: Settings, parent: Any, repeat: str) -> tuple[AdviceLoop, list[str]]:
    """Do as `improve`.

    Returns
    -------
    AdviceLoop
        All trainings, and the best.
    list of str
        Findings in sentences.
    """
    start = {name: value for name, value in settings.items() if name != IMPROVE.name}
    metric = experiment.improvement_objective or experiment.objective
    loop = AdviceLoop(
        start, settings[IMPROVE.name], metric=metric, goal="min", stepwise=experiment.stepwise, hints=True
    )
    outcomes: dict[str, Outcome] = {}
    try:
        while (proposal := loop.propose()) is not None:
            loop.add(_train(experiment, loop, proposal, outcomes))
    except KeyboardInterrupt:
        if loop.trainings:
            with held("comparing the finished trainings"), after_interrupt():
                _report(experiment, loop, outcomes, parent.info.run_id, repeat)
        raise
    with held("comparing the trainings"):
        return loop, _report(experiment, loop, outcomes, parent.info.run_id, repeat)


def _train(
    experiment: Experiment, loop: AdviceLoop, proposal: Proposal, outcomes: dict[str, Outcome]
) -> TrainingResult:
    """Train once in a nested run, and add the outcome to `outcomes` by its label."""
    number = len(loop.trainings)
    label = f"{number}: {_changes(proposal)}" if number else "start"
    say(f"training {number}: {_changes(proposal)}", file=sys.stderr)
    run_id = ""
    try:
        with mlflow.start_run(nested=True) as active_run, ending(active_run.info.run_id):
            run_id = active_run.info.run_id
            runs.set_tags(run_id, training_tags(number, proposal))
            params = {name: arguments.text_of(value) for name, value in proposal.hyperparameters.items()}
            runs.log_once(active_run, params, runs.run_tags("training", {tags.EXPERIMENT_TAG: experiment.name}))
            settings = _read(experiment, params) | {IMPROVE.name: 0}
            outcome = experiment.train(settings, command(experiment, settings))
            describe_training(run_id, number, proposal)
    except Exception as error:
        if number == 0:
            raise
        say(f"{label} failed: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
        return TrainingResult(proposal, run_id, error=f"{type(error).__name__}: {first_line(error)}")
    outcomes[f"{label} {_verdict(outcome)}".strip()] = outcome
    return TrainingResult(proposal, run_id, tuple(outcome.advice), Scores(outcome.numbers))


def _read(experiment: Experiment, texts: dict[str, str]) -> Settings:
    """Read the values of a training, as from the command line: advice may name one that the experiment refuses."""
    parameters = [parameter for parameter in experiment.parameters if parameter.name in texts]
    return arguments.combinations(texts, parameters)[0]


def _report(
    experiment: Experiment, loop: AdviceLoop, outcomes: dict[str, Outcome], parent_id: str, repeat: str
) -> list[str]:
    """Record table, best run, description and pictures in the parent run."""
    name_best(parent_id, loop)
    sentences = _story(loop, outcomes)
    lines = "\n".join(f"- {sentence}" for sentence in sentences)
    beginning = f"**Result**: {plain(summary(loop))}\n\n"
    text = (
        f"{lines}\n\n{table(loop)}\n\n**{experiment.question}**\n\n"
        f"The best run: `{loop.best.run_id}`\n\n**To repeat it**: `{repeat}`\n"
    )
    runs.set_description(parent_id, beginning + text)  # before the pictures, whose store may fail
    (experiment.compare_improved or experiment.compare)(parent_id, outcomes)
    runs.set_description(parent_id, beginning + look_at_first(parent_id, experiment.picture) + text)
    return [sentence.replace("**", "") for sentence in (summary(loop), *sentences)]


def _story(loop: AdviceLoop, outcomes: dict[str, Outcome]) -> list[str]:
    """Describe each training: its changes, and what was found first."""
    sentences = []
    by_run = {outcome.run_id: outcome for outcome in outcomes.values()}
    for number, training in enumerate(loop.trainings):
        name = f"Training {number}" if number else "The start"
        outcome = by_run.get(training.run_id)
        first = None if outcome is None else _arrival(outcome) or next(iter(outcome.advice), None)
        text = training.error if outcome is None else "nothing out of the ordinary" if first is None else first.text
        sentences.append(f"**{name}**, {_changes(training.proposal)}: {plain(text)}")
    return sentences


def _verdict(outcome: Outcome) -> str:
    """End of a descent on a surface, for the legend: "(it crawls)"; empty for other trainings."""
    arrival = _arrival(outcome)
    return "" if arrival is None else f"(it {arrival.verdict})"


def _arrival(outcome: Outcome) -> Finding | None:
    return next((finding for finding in outcome.advice if finding.name in ARRIVALS), None)


def _changes(proposal: Proposal) -> str:
    changes = (f"{each.keyword}={arguments.text_of(each.new)}" for each in proposal.changes)
    return ", ".join(changes) or "with the settings as they are"
