"""One fit of a search, where it is computed: in this process, or in a worker that sends what happens to it.

Workers import this module: it and what it imports has to stay light.
"""

from __future__ import annotations

import time
import traceback
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mlflow_hp.search.live import dask_random, worker_channel
from mlflow_hp.search.live.events import Epoch, Outcome, Plain, Raised, Started, Unrecorded
from mlflow_hp.search.live.keras_epochs import curves_to
from mlflow_hp.search.resume.seen import seen, watched
from mlflow_hp.search.speedups.epoch_sharing import Training
from mlflow_hp.search.speedups.model_reuse import reused_models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.search.live.events import Address


class Task:
    """A function of scikit-learn's that, called, tells when it starts, how it goes on, and hands back an `Outcome`."""

    def __init__(self, number: int, function: Callable[..., Any], address: Address, steps: bool = False) -> None:
        self.number = number
        self.function = function
        self.address = address
        self.steps = steps

    def __call__(self, *arguments: Any, **named: Any) -> Outcome:
        """Call the function."""
        return _Fit(self).compute(arguments, named)


class SharedTask:
    """Fits that differ only in epochs, and share one training: called, it hands back an `Outcome` for each.

    Parameters
    ----------
    tasks : sequence of Task
    epochs : sequence of int
        Of each.
    own : sequence of dict
        What the function of each is given besides what all are given.
    """

    def __init__(self, tasks: Sequence[Task], epochs: Sequence[int], own: Sequence[dict[str, Any]]) -> None:
        self.tasks = tasks
        self.epochs = epochs
        self.own = own

    def __call__(self, **named: Any) -> list[Outcome]:
        """Call the functions, that with most epochs first."""
        order = sorted(range(len(self.tasks)), key=lambda index: -self.epochs[index])
        training = Training(set(self.epochs), self.tasks[order[0]].number)
        fits = [_Fit(task) for task in self.tasks]
        own, self.own = dict(enumerate(self.own)), ()  # so that no estimator outlives its fit, nor its model
        return [fits[index].compute((), {**named, **own.pop(index)}, training) for index in order]


class _Fit:
    """A fit that has started."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.started = time.time()
        self.sender = worker_channel.Sender(task.address)
        self.sender.send(Started(task.number, self.started))

    def compute(self, arguments: Any, named: Any, training: Training | None = None) -> Outcome:
        """Call the task's function; with `training`, take over what another fit trained, or keep it for others."""
        task, sender = self.task, self.sender

        def on_epoch(fit: int, epoch: int, values: Mapping[str, float]) -> None:
            event = Epoch(task.number, time.time(), fit, epoch, values)
            sender.send(event)
            if training is not None and training.is_kept:
                training.curve.append(event)

        def problem(said: str) -> None:
            sender.send(Unrecorded(task.number, time.time(), said))

        def plain(reason: str, is_fault: bool) -> None:
            sender.send(Plain(task.number, time.time(), reason, is_fault))

        try:
            steps_to = (lambda: sender.ask(task.number)) if task.steps else None
            apart = dask_random.apart() if task.address.on_dask else nullcontext()
            reused = reused_models(plain) if task.address.reuse else nullcontext()
            shared = training.next_fit(plain) if training else nullcontext()
            with watched(), apart, curves_to(on_epoch, steps_to, problem), reused, shared:
                result = task.function(*arguments, **named)
        except Exception:  # an interruption is no fault of the fit
            sender.send(Raised(task.number, time.time(), traceback.format_exc()))
            raise
        trained_by = None
        if training is not None and training.taken is not None:
            trained_by = training.number
            if "fit_time" in result:
                result["fit_time"] += training.taken.seconds
            for event in training.curve:
                if event.epoch < len(training.taken.logs):
                    sender.send(event._replace(task=task.number))
        times = self.started, time.time()
        outcome = Outcome(task.number, *times, sender.unsent, sender.n_sent, result, trained_by, seen())
        if sender.is_remote or training is not None:  # what is not handed back yet may get lost: a worker may die
            sender.send(outcome, keep=False)
        return outcome._replace(n_sent=sender.n_sent)
