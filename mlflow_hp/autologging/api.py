"""`autolog`: record every training and every search of a program by one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from mlflow_hp._notice import silence
from mlflow_hp.autologging.patches import Settings, patches
from mlflow_hp.delivery.metric_selection import MAX_POINTS
from mlflow_hp.errors import UserError
from mlflow_hp.training.callback import TrainingRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mlflow_hp.analysis import Finding


def autolog(
    *,
    disable: bool = False,
    silent: bool = False,
    log_models: bool = False,
    log_datasets: bool = True,
    extra_tags: Mapping[str, str] | None = None,
    weights: Literal["auto", "all", "statistics", "none"] = "auto",
    metrics_every: int = 1,
    gradients: Literal["auto"] | bool = "auto",
    overhead: float = 0.05,
    sharpness_every: int | None = None,
    metrics: Literal["summary", "all"] = "summary",
    max_points: int | None = MAX_POINTS,
    report: bool = True,
    snapshot_megabytes: float = 0.0,
    on_finding: Callable[[Finding], object] | None = None,
    stop_on: Collection[str] = (),
    record: Literal["epochs", "batches"] = "epochs",
    per_fold_runs: bool = False,
    reuse: bool = True,
    share_epochs: bool = True,
    progress: bool = True,
) -> None:
    """Record every ``fit`` of a Keras model and every ``fit`` of a scikit-learn search from now on.

    One line at the top of a script or notebook does what `TrainingRecorder` and `record_search` do for each training
    and each search: in the active run, else in a run of its own that is ended with it. Trainings of one model continue
    its run, so a loop of ``fit(epochs=1)`` makes one run. A training inside a trial of scikeras, KerasTuner or Optuna
    has a run of its own, nested in the active one. A `TrainingRecorder` among the callbacks is used instead, and
    trainings in a recorded search belong to the search.

    A further training of a model that takes less than a second leaves their run open for ten seconds, in which the next
    one continues it; the report is made when the run ends.

    It works next to MLflow's own autologging, in any order. A second call, also in another thread, replaces the
    settings of the first for trainings and searches that begin later; a call that is refused changes nothing.

    Parameters
    ----------
    disable : bool
        Whether to end it: later trainings and searches are not recorded. Defaults to False.
    silent : bool
        Whether this package shows no warnings, messages and progress bars from now on, until the next call of
        `autolog`. What a run lacks is in its tag ``mlflow_hp.recording_error`` all the same. Defaults to False.
    log_models : bool
        Whether the trained Keras model is logged to the run as an MLflow model at the end of each fit, and the best
        estimator of a search, unless MLflow's own autologging logs it. Defaults to False: saving takes seconds, each
        model of a loop of fits or of a study would be stored, and a model is easily logged where it is wanted.
    log_datasets : bool
        As in `TrainingRecorder`; and whether the data of a search are logged to its run. Defaults to True.
    extra_tags : mapping of str to str, optional
        Further tags of each run that is recorded. Defaults to none.
    weights : {"auto", "all", "statistics", "none"}
        As in `TrainingRecorder`. Defaults to ``"auto"``.
    metrics_every : int
        As in `TrainingRecorder`. Defaults to 1.
    gradients : {"auto", True, False}
        As in `TrainingRecorder`. Defaults to ``"auto"``.
    overhead : float
        As in `TrainingRecorder`. Defaults to 0.05.
    sharpness_every : int, optional
        As in `TrainingRecorder`. Defaults to None.
    metrics : {"summary", "all"}
        As in `TrainingRecorder`. Defaults to ``"summary"``.
    max_points : int, optional
        As in `TrainingRecorder`. Defaults to 20,000.
    report : bool
        As in `TrainingRecorder` and `record_search`. Defaults to True.
    snapshot_megabytes : float
        As in `TrainingRecorder`. Defaults to 0.0.
    on_finding : callable, optional
        As in `TrainingRecorder`. Defaults to None.
    stop_on : tuple of str
        As in `TrainingRecorder`. Defaults to ``()``.
    record : {"epochs", "batches"}
        As in `record_search`. Defaults to ``"epochs"``.
    per_fold_runs : bool
        As in `record_search`. Defaults to False.
    reuse : bool
        As in `record_search`. Defaults to True.
    share_epochs : bool
        As in `record_search`. Defaults to True.
    progress : bool
        As in `record_search`. Defaults to True.

    Raises
    ------
    UserError
        For a setting that is unknown, of another type, or that `TrainingRecorder` or `record_search` refuses.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> mlflow_hp.autolog(report=False)
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> _ = model.fit(x, 2 * x, batch_size=4, epochs=3, verbose=0)
    >>> mlflow_hp.load_history(mlflow.last_active_run().info.run_id).n_steps
    6
    >>> mlflow_hp.autolog(disable=True)
    """
    switches = {
        "disable": disable, "silent": silent, "log_models": log_models, "log_datasets": log_datasets, "report": report,
        "per_fold_runs": per_fold_runs, "reuse": reuse, "share_epochs": share_epochs, "progress": progress,
    }  # fmt: skip
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise UserError(f"{name}={value!r:.200} is a {type(value).__name__}; choose True or False")
    if not isinstance(extra_tags or {}, Mapping):
        raise UserError(
            f"extra_tags={extra_tags!r:.200} is a {type(extra_tags).__name__}; give a dict of names and values"
        )
    if disable:
        patches.set(None)
        silence(False)
        return
    recorder = {
        "weights": weights, "metrics_every": metrics_every, "metrics": metrics, "max_points": max_points,
        "report": report, "snapshot_megabytes": snapshot_megabytes, "sharpness_every": sharpness_every,
        "gradients": gradients, "overhead": overhead, "on_finding": on_finding, "stop_on": stop_on,
    }  # fmt: skip
    TrainingRecorder(**recorder)  # type: ignore[arg-type]  # refuses what cannot be recorded
    if record not in ("epochs", "batches"):
        raise UserError(f"record={record!r} is unknown; choose 'epochs', or 'batches' for every step of Keras models")
    search = {
        "record": record, "per_fold_runs": per_fold_runs, "reuse": reuse, "share_epochs": share_epochs,
        "report": report, "progress": progress and not silent,
    }  # fmt: skip
    tags = {str(name): str(value) for name, value in (extra_tags or {}).items()}
    silence(silent)
    patches.set(Settings(recorder, search, tags, log_models, log_datasets))
