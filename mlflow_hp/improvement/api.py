"""`improve`: train, follow the advice of the diagnosis, and train again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._notice import log, warn
from mlflow_hp.autologging.temporarily import every_fit_recorded
from mlflow_hp.delivery.signals import held
from mlflow_hp.errors import UserError
from mlflow_hp.improvement.advice_loop import AdviceLoop
from mlflow_hp.improvement.keywords import keyword_values
from mlflow_hp.improvement.nested_training import Trained, finished_before, train_nested
from mlflow_hp.improvement.report import describe, summary, verdict_text
from mlflow_hp.improvement.resume import KIND, Function, find_previous, function_of, start_params
from mlflow_hp.improvement.training_result import BETTER, START, Improvement
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import OwnRun, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow.entities import Run

    from mlflow_hp.improvement.proposals import Proposal
    from mlflow_hp.improvement.scores import Goal


def improve(
    train: Callable[..., Any],
    start: Mapping[str, Any],
    trainings: int = 3,
    *,
    metric: str | None = None,
    goal: Goal | None = None,
    hints: bool = False,
    resume: bool | str = False,
) -> Improvement:
    """Train, change what the diagnosis says, and train again, until nothing is left to try.

    ``train(**start)`` is trained first. Then the first finding of its diagnosis whose change touches a keyword of the
    function is followed, and so on from the best training so far. A change that makes the result worse is taken back,
    and the next finding is tried; or half the change, if one number went too far. It ends as nothing is left to try,
    all `trainings` are used up, or a change made no real difference and no finding is a problem. A training without a
    problem is left as it is. The result is never worse than the start.

    Findings name parameters as Keras does, and the function may name them otherwise: ``lr`` for the learning rate,
    ``batch`` for the batch size, ``dropout``, ``hidden``, ``standardize``, ...: see docs/improve.md for all names.

    Every training has a run, nested in the active one, or in one that is started for the improvement: with its
    hyperparameters, everything that `TrainingRecorder` records (no callback is needed), and the finding that led to it.
    The parent names the best one, and has a table of all.

    Parameters
    ----------
    train : callable
        Function of hyperparameters that builds, compiles and fits a Keras model. It may return the model, its History,
        both, or scores: a number or a dict of numbers. The last ``fit`` in it counts.
    start : mapping of str to object
        Keyword values of the first training.
    trainings : int
        Trainings after the start, at most. Defaults to 3.
    metric : str, optional
        What trainings are compared by: a metric of Keras, such as ``"val_accuracy"``, or a name in the dict that
        `train` returns (``"score"`` for a number). Defaults to the held-out loss (``val_loss``, else ``loss``) of the
        epoch whose model was kept; if the loss itself has changed, to a metric that both trainings have.
    goal : {"min", "max"}, optional
        Whether lower or higher values of `metric` are better. Defaults to what its name says; higher for ``"score"``.
    hints : bool
        Whether findings that are hints (such as more epochs, where the loss still falls) are followed though the start
        has no problem. Defaults to False.
    resume : bool or str
        The id of the parent run of an interrupted improvement, or True for the latest unfinished one of this function
        and this start in the active experiment (if there is none, or the function's code has changed since, a new one
        begins). Trainings that had finished are read from their runs instead of being repeated. Defaults to False.

    Returns
    -------
    Improvement
        The best hyperparameters, its run, all trainings, and the result in words.

    Raises
    ------
    UserError
        If `train` cannot be called with `start`, an argument is invalid, the tracking server does not answer, or the
        run of `resume` cannot be resumed.
    Exception
        What `train` raises for the start; a later training that fails is left out.

    Examples
    --------
    >>> import keras, mlflow_hp, numpy as np
    >>> x = np.linspace(0, 1, 64)[:, None]
    >>> def train(lr, epochs=10):
    ...     model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    ...     model.compile(keras.optimizers.SGD(lr), "mse")
    ...     return model.fit(x, 3 * x + 1, epochs=epochs, batch_size=8, verbose=0)
    >>> improvement = mlflow_hp.improve(train, {"lr": 0.001}, trainings=1)
    >>> len(improvement.trainings) <= 2
    True
    """
    defaults = keyword_values(train, start)
    _check(trainings, goal, resume)
    runs.ensure_reachable()
    function = function_of(train)
    previous = find_previous(resume, function, start)
    loop = AdviceLoop(start, trainings, defaults=defaults, metric=metric, goal=goal or _goal_of(metric), hints=hints)
    best_returned: Any = None
    with _parent_run(None if previous is None else previous.run_id, function, start) as parent_id, every_fit_recorded():
        try:
            while (proposal := loop.propose()) is not None:
                number = len(loop.trainings)
                trained = _trained(train, proposal, number, () if previous is None else previous.trainings)
                judged = loop.add(trained.result)
                if judged.verdict in (START, BETTER):
                    best_returned = trained.returned
                log(f"training {number}, {proposal.name}: {verdict_text(judged)}", name=__name__)
        finally:
            if loop.trainings:
                with held("describing the improvement"):
                    _describe(parent_id, loop)
    text = summary(loop)
    log(f"{text} See run {parent_id}.", name=__name__)
    best = loop.best
    return Improvement(best.hyperparameters, best.run_id, tuple(loop.trainings), parent_id, text, best_returned)


def _trained(train: Callable[..., Any], proposal: Proposal, number: int, previous: Sequence[Run]) -> Trained:
    """Train as proposed, or take over what an earlier process has trained."""
    with held("reading the record"):
        earlier = finished_before(previous, proposal)
    return train_nested(train, proposal, number) if earlier is None else Trained(earlier)


def _check(trainings: int, goal: Any, resume: Any) -> None:
    if not isinstance(trainings, int) or isinstance(trainings, bool) or trainings < 0:
        raise UserError(
            f"trainings={trainings!r:.200} has to be a whole number, 0 or more, of trainings after the start"
        )
    if goal not in (None, "min", "max"):
        raise UserError(f"goal={goal!r:.200} is unknown; choose 'min' or 'max'")
    if not isinstance(resume, (bool, str)):
        raise UserError(f"resume={resume!r:.200} is neither True nor the id of a parent run")


def _goal_of(metric: str | None) -> Goal | None:
    return "max" if metric == "score" else None


@contextlib.contextmanager
def _parent_run(run_id: str | None, function: Function, start: Mapping[str, Any]) -> Iterator[str]:
    """Make the parent run active inside the block: the one to resume, else the active one, else a new one."""
    active = mlflow.active_run()
    tags = runs.run_tags(KIND, function.tags)
    own = None
    if active is not None and run_id in (None, active.info.run_id):
        parent_id = str(active.info.run_id)
        runs.set_tags(parent_id, tags)
    else:
        own = OwnRun(tags, run_id)
        parent_id = own.run_id
    failure: BaseException | None = None
    try:
        runs.log_once(mlflow.MlflowClient().get_run(parent_id), start_params(start))
        runs.log_code(parent_id)
        yield parent_id
    except BaseException as error:
        failure = error
        raise
    finally:
        if own is not None:
            with held():
                own.end(status_of(failure))


def _describe(parent_id: str, loop: AdviceLoop) -> None:
    try:
        describe(parent_id, loop)
    except Exception as error:  # noqa: BLE001 - the trainings themselves have succeeded
        warn(f"the report of the improvement {parent_id} is incomplete: {type(error).__name__}: {error}")
