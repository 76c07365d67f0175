"""Sharing of one training by candidates that differ only in the number of epochs.

If nothing in a training depends on the total number, its first epochs equal a training of fewer epochs. So the fit with
most epochs is trained, the state of its model after each of the smaller numbers is stored, and the other fits get that
state instead of being trained. scikit-learn still builds, fits and scores each of them, so its results do not change. A
fit reuses a state only if its data and initial weights are the same bit for bit; otherwise it is trained.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.scikeras import add_callback
from mlflow_hp.search.speedups.scikeras_fit import KerasFit, ignore_reason, sped_up
from mlflow_hp.search.speedups.training_state import State, digest, refuse_unsafe, restore, state_callback

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from mlflow_hp.search.speedups.scikeras_fit import OnPlain


class SharedTraining:
    """A training whose states after some of its epochs are stored, for trainings that would only repeat it.

    Parameters
    ----------
    counts : set of int
        Numbers of epochs after which to store the state.
    task : int
        Number of the fit that is trained (0-based).

    Attributes
    ----------
    reused : State or None
        State that the last fit got instead of being trained.
    is_recorded : bool
        Whether the training is running now.
    curve : list of Epoch
        Events of its epochs, for the fits that reuse it; filled by the caller.
    """

    def __init__(self, counts: set[int], task: int) -> None:
        self.task = task
        self.reused: State | None = None
        self.is_recorded = False
        self.curve: list[Any] = []
        self.states: dict[int, State] = {}
        self._counts = counts
        self._start: bytes | None = None

    @contextlib.contextmanager
    def next_fit(self, on_plain: OnPlain = ignore_reason) -> Iterator[None]:
        """Enter this block around each of the fits that share the training, the one with most epochs first.

        `on_plain` is called with the reason why a fit is trained alone, and whether that is a fault rather than a known
        limit.
        """
        self.reused = None
        self._on_plain = lambda reason, is_fault: on_plain(f"the training is not shared: {reason}", is_fault)
        with sped_up(self._share, self._on_plain):
            yield

    def _share(self, fit: KerasFit) -> Generator[int, None, None]:
        """Store the states of the first training; give them to later ones."""
        refuse_unsafe(fit)
        start = digest(fit)
        if self._start is None:
            self._start = start
            callback = state_callback(self._counts, self.states, self._on_plain)
            remove_callback = add_callback(fit.estimator, callback)
            self.is_recorded = True
            try:
                yield 0
            finally:
                self.is_recorded = False
                remove_callback()
            if missing := self._counts - self.states.keys():
                raise RuntimeError(f"no state after epochs {sorted(missing)}: Keras did not call on_epoch_end")
        elif start == self._start and fit.epochs in self.states:
            state = self.states[fit.epochs]
            self.reused = restore(fit, state)
            yield fit.epochs
        else:
            yield 0
