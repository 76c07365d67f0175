"""The best epoch of a fit: chosen by the metric that its callbacks monitor, else by ``val_loss``, else by ``loss``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Mode = Literal["min", "max"]


class Criterion(NamedTuple):
    """Metric that decides which epoch is the best.

    Attributes
    ----------
    metric : str
        Its name in Keras' logs.
    mode : {"min", "max"}
        Whether lower or higher values are better.
    """

    metric: str
    mode: Mode

    def is_better(self, one: float, other: float) -> bool:
        """Whether the value `one` is better than `other`."""
        return one < other if self.mode == "min" else one > other

    @property
    def text(self) -> str:
        """The criterion in a tag: ``"min val_loss"``."""
        return f"{self.mode} {self.metric}"

    @classmethod
    def parse(cls, text: str) -> Criterion | None:
        """Read `text`; None if it is no criterion."""
        mode, _, metric = text.partition(" ")
        return cls(metric, mode) if mode in ("min", "max") and metric else None  # type: ignore[arg-type]


DEFAULTS = (Criterion("val_loss", "min"), Criterion("loss", "min"))
"""Criteria of fits whose callbacks monitor nothing; the first of which there are values decides."""


class BestEpoch(NamedTuple):
    """Best epoch of a fit.

    Attributes
    ----------
    epoch : int
        Its number (0-based, over all fits of the run).
    values : dict of str to float
        Values of Keras' logs at its end, without metrics that are NaN in every epoch.
    by : Criterion
        What it was chosen by.
    kept_value : float or None
        Value of the deciding metric for the model that ``EarlyStopping`` restored or ``ModelCheckpoint`` saved; None
        if neither did. Defaults to None.

    Examples
    --------
    >>> from mlflow_hp.training.best_epoch import best_by, Criterion
    >>> best = best_by([{"epoch": 0, "loss": 0.2}, {"epoch": 1, "loss": 0.4}], Criterion("loss", "min"))
    >>> best.epoch, best.values, best.by.text, best.saved
    (0, {'loss': 0.2}, 'min loss', 'last')
    """

    epoch: int
    values: dict[str, float]
    by: Criterion
    kept_value: float | None = None

    @property
    def value(self) -> float:
        """Value of the deciding metric."""
        return self.values[self.by.metric]

    @property
    def saved(self) -> Literal["best", "last"]:
        """Model that the fit leaves behind: that of its best epoch, if it kept that, else that of its last."""
        return self.saved_of(self.value)

    def saved_of(self, value: float) -> Literal["best", "last"]:
        """Model that the fit leaves behind, if the best value of the run is another than that of this fit.

        Parameters
        ----------
        value : float
            Best value of the deciding metric in the run.

        Returns
        -------
        {"best", "last"}
            "best" if the model that was kept has this value.
        """
        return "best" if self.kept_value is not None and math.isclose(self.kept_value, value, rel_tol=1e-6) else "last"

    def to_json(self) -> dict[str, Any]:
        """Convert to a record of a journal, for a recovery.

        Returns
        -------
        dict of str to object
            Record for `from_json`.
        """
        return {"epoch": self.epoch, "values": self.values, "by": self.by.text, "kept_value": self.kept_value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> BestEpoch | None:
        """Read a record of `to_json`.

        Parameters
        ----------
        record : mapping of str to object
            The record.

        Returns
        -------
        BestEpoch or None
            None if its criterion is unknown.
        """
        by = Criterion.parse(record["by"])
        return None if by is None else cls(record["epoch"], record["values"], by, record["kept_value"])


class Monitors:
    """Callbacks of a fit that monitor a metric in order to restore, save or stop at the best epoch.

    Parameters
    ----------
    callbacks : iterable of keras.callbacks.Callback
        All callbacks of the fit.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        monitoring = [callback for callback in callbacks if _stops(callback) or _saves(callback)]
        monitoring.reverse()  # of several that restore weights, the last has the last word
        self._callbacks = sorted(monitoring, key=lambda callback: (not _restores(callback), not _saves(callback)))

    @property
    def restored_epoch(self) -> int | None:
        """Epoch, as Keras counts it in this fit, whose weights are restored when the fit ends; None if none are."""
        for callback in self._callbacks:
            if _restores(callback) and callback.best_weights is not None:
                return int(callback.best_epoch)
        return None

    def best_epoch(self, rows: Sequence[Mapping[str, float]], restored_epoch: int | None) -> BestEpoch | None:
        """Choose the best epoch of a fit.

        Parameters
        ----------
        rows : sequence of mapping of str to float
            Values of each epoch: ``epoch`` (0-based, over all fits of the run), and Keras' logs.
        restored_epoch : int or None
            Epoch, counted likewise, whose weights were restored at the end: to the callback, this is the best.

        Returns
        -------
        BestEpoch or None
            None if no epoch has a finite value of a metric to judge it by.
        """
        for callback in self._callbacks:
            mode = _mode_of(callback)
            if mode is None:
                continue
            restored = restored_epoch if _restores(callback) and callback.best_weights is not None else None
            chosen = best_by(rows, Criterion(callback.monitor, mode), restored)
            if chosen is not None and restored is not None:
                return chosen._replace(kept_value=chosen.value)
            if chosen is not None:
                return chosen._replace(kept_value=float(callback.best) if _saves(callback) else None)
        return next(filter(None, (best_by(rows, criterion) for criterion in DEFAULTS)), None)


def best_by(
    rows: Sequence[Mapping[str, float]], criterion: Criterion, restored_epoch: int | None = None
) -> BestEpoch | None:
    """Choose the first epoch with the best finite value, or the restored one; None if there is none."""
    best: Mapping[str, float] | None = None
    for row in rows:
        value = row.get(criterion.metric, math.nan)
        if not math.isfinite(value):
            continue
        if row["epoch"] == restored_epoch:
            best = row
            break
        if best is None or criterion.is_better(value, best[criterion.metric]):
            best = row
    if best is None:
        return None
    known = {name for row in rows for name, value in row.items() if not math.isnan(value)}
    values = {name: value for name, value in best.items() if name in known and name not in ("epoch", "seconds")}
    return BestEpoch(int(best["epoch"]), values, criterion)


def _restores(callback: Any) -> bool:
    return _stops(callback) and bool(callback.restore_best_weights)


def _saves(callback: Any) -> bool:
    import keras

    is_checkpoint = isinstance(callback, keras.callbacks.ModelCheckpoint)
    return is_checkpoint and callback.save_best_only and callback.save_freq == "epoch"


def _stops(callback: Any) -> bool:
    import keras

    return isinstance(callback, keras.callbacks.EarlyStopping)


def _mode_of(callback: Any) -> Mode | None:
    """Direction of a callback's metric; Keras infers that of "auto" at the end of the first epoch."""
    if callback.monitor_op is None:
        return callback.mode if callback.mode in ("min", "max") else None
    return "min" if bool(callback.monitor_op(0.0, 1.0)) else "max"
