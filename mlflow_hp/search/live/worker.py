"""One fit of a search, in this process or in a worker, with its events sent to the recording process.

Workers import this module: it and its imports must stay light.
"""

from __future__ import annotations

import time
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.dask import separate_generator
from mlflow_hp.search.live import worker_channel
from mlflow_hp.search.live.events import (
    Epoch,
    Outcome,
    PlainTraining,
    Raised,
    RecordingProblem,
    Started,
    UnknownOutcome,
)
from mlflow_hp.search.live.keras_epochs import record_epochs
from mlflow_hp.search.live.workload import Trainings
from mlflow_hp.search.resume.dependencies import dependencies, watch_files
from mlflow_hp.search.speedups.epoch_continuation import ContinuedTraining
from mlflow_hp.search.speedups.epoch_sharing import SharedTraining
from mlflow_hp.search.speedups.model_reuse import reused_models
from mlflow_hp.tracking.parent import nested_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mlflow_hp.search.live.events import Address


class FoldTask:
    """Callable in place of scikit-learn's fit function: sends events while it runs, and returns an `Outcome`.

    Parameters
    ----------
    task : int
        Number of the fit (0-based).
    function : callable
        scikit-learn's function.
    address : Address
        Where the events go.
    steps : bool
        Whether every step of the Keras models is recorded. Defaults to False.
    state_file : Path, optional
        File for the state of the training, from which the next round goes on. Defaults to None.
    """

    def __init__(
        self,
        task: int,
        function: Callable[..., Any],
        address: Address,
        steps: bool = False,
        state_file: Path | None = None,
    ) -> None:
        self.state_file = state_file
        self.task = task
        self.function = function
        self.address = address
        self.steps = steps

    def __call__(self, *arguments: Any, **named: Any) -> Outcome:
        """Call the function."""
        training = None if self.state_file is None else ContinuedTraining(self.state_file, self.task)
        return _RunningFit(self).compute(arguments, named, training)


class SharedFoldTask:
    """Callable for several fits that differ only in epochs and share one training; returns an `Outcome` for each.

    Parameters
    ----------
    fold_tasks : sequence of FoldTask
    epochs : sequence of int
        Number of epochs of each.
    own : sequence of dict
        Arguments of each that differ from those of the others.
    """

    def __init__(self, fold_tasks: Sequence[FoldTask], epochs: Sequence[int], own: Sequence[dict[str, Any]]) -> None:
        self.fold_tasks = fold_tasks
        self.epochs = epochs
        self.own = own

    def __call__(self, **named: Any) -> list[Outcome]:
        """Call the functions, the one with most epochs first; `named` are the arguments that all share."""
        order = sorted(range(len(self.fold_tasks)), key=lambda index: -self.epochs[index])
        training = SharedTraining(set(self.epochs), self.fold_tasks[order[0]].task)
        fits = [_RunningFit(fold_task) for fold_task in self.fold_tasks]
        own, self.own = dict(enumerate(self.own)), ()  # releases each estimator, with its model, after its fit
        return [fits[index].compute((), {**named, **own.pop(index)}, training) for index in order]


class UnknownTask:
    """Callable in place of a function of scikit-learn that is not understood; returns an `UnknownOutcome`."""

    def __init__(self, task: int, function: Callable[..., Any]) -> None:
        self.task = task
        self.function = function

    def __call__(self, *arguments: Any, **named: Any) -> UnknownOutcome:
        """Call the function."""
        return UnknownOutcome(self.task, self.function(*arguments, **named))


class _RunningFit:
    """A fit that has started."""

    def __init__(self, fold_task: FoldTask) -> None:
        self.fold_task = fold_task
        self.started = time.time()
        self.sender = worker_channel.EventSender(fold_task.address)
        self.sender.send(Started(fold_task.task, self.started))

    def compute(
        self, arguments: Any, named: Any, training: SharedTraining | ContinuedTraining | None = None
    ) -> Outcome:
        """Call the task's function; with `training`, reuse the training of another fit or provide it to others."""
        fold_task, sender = self.fold_task, self.sender
        task, trainings = fold_task.task, Trainings()

        def on_epoch(fit: int, epoch: int, values: Mapping[str, float]) -> None:
            event = Epoch(task, time.time(), fit, epoch, values)
            sender.send(event)
            if training is not None and training.is_recorded:
                training.curve.append(event)

        def on_problem(text: str) -> None:
            sender.send(RecordingProblem(task, time.time(), text))

        def on_plain(reason: str, is_fault: bool) -> None:
            sender.send(PlainTraining(task, time.time(), reason, is_fault))

        try:
            fold_run = (lambda: sender.ask(task)) if fold_task.steps else None
            apart = separate_generator() if fold_task.address.on_dask else nullcontext()
            reused = reused_models(on_plain) if fold_task.address.reuse else nullcontext()
            shared = training.next_fit(on_plain) if training else nullcontext()
            below = nested_in(fold_task.address.run_id)
            epochs = record_epochs(on_epoch, fold_run, on_problem, trainings.add)
            with watch_files(), apart, below, epochs, reused, shared:
                result = fold_task.function(*arguments, **named)
        except Exception:  # not BaseException: an interruption is no failure of the fit
            sender.send(Raised(task, time.time(), traceback.format_exc()))
            raise
        trained_by, reused_seconds = None, 0.0
        if training is not None and training.reused is not None:
            trained_by, reused_seconds = training.task, training.reused.seconds
            if isinstance(result, dict) and "fit_time" in result:
                result["fit_time"] += training.reused.seconds
            for event in training.curve:
                if event.epoch < len(training.reused.logs):
                    sender.send(event._replace(task=task))
        times = self.started, time.time()
        workload = trainings.workload()
        outcome = Outcome(task, *times, sender.unsent, sender.n_sent, result, trained_by, dependencies(), workload)
        outcome = outcome._replace(reused_seconds=reused_seconds)
        if sender.is_remote or training is not None:  # before it is returned: the worker may die until then
            sender.send(outcome, keep=False)
        return outcome._replace(n_sent=sender.n_sent)
