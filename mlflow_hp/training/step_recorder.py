"""record_steps: the steps of a training loop that the program has written itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import keras
import mlflow
import numpy as np

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.delivery.metric_selection import MAX_POINTS
from mlflow_hp.delivery.signals import exit_on_sigterm, held
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import status_of
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.server_health import reason
from mlflow_hp.training.callback import TrainingRecorder
from mlflow_hp.training.capture.step_layout import batch_column, to_numpy
from mlflow_hp.training.fit_settings import fit_settings
from mlflow_hp.training.session import FitSession
from mlflow_hp.training.training_run import start_training_run

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mlflow_hp.analysis import Finding
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.training.fit_settings import FitSettings


class StepRecorder:
    """Recorder of the steps of one loop; `record_steps` yields it.

    Attributes
    ----------
    run_id : str or None
        Id of the run; None if there is none, and nothing is recorded.
    history : TrainingHistory or None
        The recorded steps, after the block.
    should_stop : bool
        Whether a finding whose verdict is in `stop_on` has become true.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> with mlflow.start_run(), mlflow_hp.record_steps(model, report=False) as steps:
    ...     for epoch in range(3):
    ...         steps.record(loss=model.train_on_batch(x, 2 * x), samples=8)
    ...         steps.end_epoch(val_loss=model.evaluate(x, 2 * x, verbose=0))
    >>> steps.history.n_steps, steps.history.n_epochs
    (3, 3)
    """

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.history: TrainingHistory | None = None
        self.should_stop = False
        self._session: FitSession | None = None
        self._epoch = 0
        self._n_steps = 0
        self._has_failed = False
        self._warned: set[str] = set()
        abandon_in_child(self)

    def record(self, *, samples: int = 0, **values: Any) -> None:
        """Record a step that has just been done: the values of its batch, the learning rates, the weights.

        Parameters
        ----------
        samples : int
            Number of samples in the batch. Defaults to 0, for unknown.
        **values : float
            Values of the batch alone by name, such as ``loss``: numbers, or arrays and tensors of one element. What is
            none is left out, with a warning.
        """
        with self._guarded():
            if self._session is not None:
                self._n_steps += 1
                columns = {batch_column(name): value for name, value in self._numbers(values).items()}
                known = self._session.steps.columns
                for name in values if known else ():
                    if batch_column(name) not in known:
                        self._warn_once(
                            name, f"{name} is not recorded, as it was not among the values of the first steps"
                        )
                self._session.steps.record({"samples": float(samples), **columns})
                self._note_end()

    def end_epoch(self, **values: Any) -> None:
        """End an epoch, and record its values; the next step belongs to the next epoch.

        Parameters
        ----------
        **values : float
            Values of the epoch by name, such as ``val_loss``.
        """
        with self._guarded():
            if self._session is not None:
                self._session.end_epoch(self._numbers(values))
                self._note_end()
                self._epoch += 1
                self._session.begin_epoch(self._epoch)

    def _note_end(self) -> None:
        live = None if self._session is None else self._session.live
        self.should_stop = live is not None and live.ended_by is not None

    def _numbers(self, values: Mapping[str, Any]) -> dict[str, float]:
        numbers = {}
        for name, value in values.items():
            try:
                array = np.asarray(to_numpy(value), np.float64)
                numbers[name] = float(array.reshape(()))
            except (TypeError, ValueError) as error:
                self._warn_once(name, f"{name} is not recorded: {reason(error)}; give a number, such as its mean")
        return numbers

    def _warn_once(self, name: str, message: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warn(message)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """On an error of the recording, warn and end the recording; the training goes on."""
        try:
            with np.errstate(all="ignore"):
                yield
        except Exception as error:  # noqa: BLE001
            self.give_up(error)

    def begin(self, model: Any, optimizers: Mapping[str, Any], settings: FitSettings, run_id: str) -> None:
        """Begin the recording into a run.

        Parameters
        ----------
        model : keras.Model
            The model that is trained.
        optimizers : mapping of str to keras.optimizers.Optimizer
            Optimizers of the loop, by name.
        settings : FitSettings
            Settings of the recording.
        run_id : str
            Id of the run.
        """
        self.run_id = run_id
        with self._guarded():
            run = runs.find_run(run_id)
            self._session = FitSession(
                model,
                {},
                settings,
                run_id,
                {} if run is None else run.data.tags,
                on_end=self._set_history,
                give_up=self.give_up,
                close=self.close,
                optimizers=optimizers,
            )
            observer.before_end(run_id, f"loop {id(self)}", functools.partial(self.close, is_complete=True))
            self._session.start()
            self._session.begin_epoch(0)

    def close(self, *, is_complete: bool = False) -> None:
        """End the recording, and send everything to MLflow.

        Parameters
        ----------
        is_complete : bool
            Whether the loop has reached its end. Defaults to False.
        """
        session, self._session = self._session, None
        if session is None:
            return
        observer.before_end(session.run_id, f"loop {id(self)}", None)
        with self._guarded(), held("sending the record to MLflow"):
            session.finish(is_complete=is_complete)

    def give_up(self, error: Exception) -> None:
        """End the recording because of an error, warn, and send everything recorded so far to MLflow.

        Parameters
        ----------
        error : Exception
            The error.
        """
        self._has_failed = True
        message = f"recording ended early: {type(error).__name__}: {error}"
        if self._session is not None:
            self._session.problems.note(message)
            self.close()
        warn(message)

    def abandon(self) -> None:
        """Stop recording in a forked child process: the parent process records the loop."""
        self._session = None

    def warn_if_empty(self) -> None:
        """Warn if no step was recorded."""
        if self.run_id is not None and not self._n_steps and not self._has_failed:
            warn("record_steps has recorded nothing: call steps.record(loss=...) after each step of the loop")

    def _set_history(self, history: TrainingHistory | None, _: Any, __: float) -> None:
        self.history = history


@contextlib.contextmanager
def record_steps(
    model: Any,
    optimizer: Any = None,
    *,
    run_id: str | None = None,
    weights: Literal["auto", "all", "statistics", "none"] = "auto",
    metrics_every: int = 1,
    overhead: float = 0.05,
    metrics: Literal["summary", "all"] = "summary",
    max_points: int | None = MAX_POINTS,
    report: bool = True,
    snapshot_megabytes: float = 0.0,
    on_finding: Callable[[Finding], object] | None = None,
    stop_on: Collection[str] = (),
) -> Iterator[StepRecorder]:
    """Record a training loop that is not ``fit``: ``train_on_batch``, or a loop of your own.

    Call ``steps.record(loss=...)`` inside the block after each step. That records what `TrainingRecorder` records of a
    step: the values given, the learning rates in force, and the weights after it; and ``steps.end_epoch(...)`` the
    values of an epoch. An error of the recording is a warning, and the loop goes on.

    Parameters
    ----------
    model : keras.Model
        The model that is trained.
    optimizer : keras.optimizers.Optimizer or dict of str to Optimizer, optional
        Optimizer of the loop, or several by name. Defaults to that of the compiled model, if there is one.
    run_id : str, optional
        The run to record into. Defaults to the active run, else one that is started and ended with the block.
    weights : {"auto", "all", "statistics", "none"}
        As in `TrainingRecorder`. Defaults to ``"auto"``.
    metrics_every : int
        As in `TrainingRecorder`. Defaults to 1.
    overhead : float
        As in `TrainingRecorder`. Defaults to 0.05.
    metrics : {"summary", "all"}
        As in `TrainingRecorder`. Defaults to ``"summary"``.
    max_points : int, optional
        As in `TrainingRecorder`. Defaults to 20,000.
    report : bool
        As in `TrainingRecorder`. Defaults to True.
    snapshot_megabytes : float
        As in `TrainingRecorder`. Defaults to 0.0.
    on_finding : callable, optional
        As in `TrainingRecorder`. Defaults to None.
    stop_on : tuple of str
        As in `TrainingRecorder`: then `StepRecorder.should_stop` becomes True, and the loop may end. Defaults to
        ``()``.

    Yields
    ------
    StepRecorder
        Its `record` takes the values of a step, its `end_epoch` those of an epoch.

    Raises
    ------
    UserError
        For a setting that `TrainingRecorder` refuses, a `model` that is none of Keras, an `optimizer` without a
        learning rate, or a run `run_id` that does not exist.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> with mlflow.start_run() as run, mlflow_hp.record_steps(model, report=False) as steps:
    ...     for _ in range(3):
    ...         steps.record(loss=model.train_on_batch(x, 2 * x), samples=8)
    >>> mlflow_hp.load_history(run.info.run_id).n_steps
    3
    """
    recorder = TrainingRecorder(
        weights=weights,
        overhead=overhead,
        metrics_every=metrics_every,
        metrics=metrics,
        max_points=max_points,
        report=report,
        snapshot_megabytes=snapshot_megabytes,
        on_finding=on_finding,
        stop_on=stop_on,
    )  # refuses what cannot be recorded
    if not isinstance(model, keras.Model):
        raise UserError(f"model={model!r:.200} is a {type(model).__name__}, not a Keras model")
    optimizers = _by_name(model, optimizer)
    if run_id is not None:
        runs.find_run(run_id)
    steps, run = StepRecorder(), None
    active = mlflow.active_run()
    if run_id is None and active is not None:
        run_id = str(active.info.run_id)
    if run_id is None:
        run = start_training_run()
        run_id = None if run is None else run.run_id
    failure: BaseException | None = None
    try:
        with exit_on_sigterm():
            if run_id is not None:
                steps.begin(model, optimizers, fit_settings(recorder), run_id)
            try:
                yield steps
            except BaseException as raised:
                failure = raised
                raise
            finally:
                steps.close(is_complete=failure is None)
        steps.warn_if_empty()
    except BaseException as raised:
        failure = raised
        raise
    finally:
        if run is not None:
            run.end(status_of(failure))


def _by_name(model: Any, optimizer: Any) -> dict[str, Any]:
    """Return the optimizers of a loop by name."""
    if optimizer is None:
        optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return {}
    optimizers = dict(optimizer) if isinstance(optimizer, Mapping) else {"optimizer": optimizer}
    for name, each in optimizers.items():
        if not hasattr(each, "learning_rate"):
            raise UserError(
                f"optimizer {name!r} is a {type(each).__name__} without a learning rate; give an optimizer of Keras, "
                "or a dict of several by name"
            )
    return optimizers
