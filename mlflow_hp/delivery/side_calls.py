"""Side calls of one recording: nothing is acknowledged before they have succeeded, and its end waits for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_hp.delivery import patience
from mlflow_hp.delivery.side_call import SideCall
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.delivery.acknowledgements import Acknowledgements
    from mlflow_hp.delivery.patience import Patience
    from mlflow_hp.delivery.retry import Retry

_POLL_SECONDS = 0.1


class SideCalls:
    """Begins the side calls of one recording, and waits for them; in the thread that sends everything else.

    Parameters
    ----------
    tracking_uri : str
        Tracking URI of the run.
    acknowledgements : Acknowledgements
        Acknowledgements of the recording.
    patience : Patience
        Measures the waiting.
    retry : Retry
        Retries of the thread; once they are abandoned, nothing is waited for.

    Attributes
    ----------
    waits_for : str or None
        Name of the data that the end of the recording waits for.
    """

    def __init__(self, tracking_uri: str, acknowledgements: Acknowledgements, patience: Patience, retry: Retry) -> None:
        self.waits_for: str | None = None
        self._tracking_uri = tracking_uri
        self._acknowledgements, self._patience, self._retry = acknowledgements, patience, retry
        self._actions: dict[SideCall, Callable[[], None]] = {}

    @property
    def failing(self) -> dict[str, Exception]:
        """Name of data that MLflow has not accepted so far -> error of the last attempt; for any thread."""
        return {call.name: call.error for call in list(self._actions) if call.error is not None}

    def begin(self, action: Callable[[], None], name: str) -> None:
        """Call `action` from now on until it succeeds, in a thread of its own."""

        def call() -> None:
            ensure_reachable(self._tracking_uri)
            action()

        self._acknowledgements.hold()
        self._actions[SideCall(call, name)] = action

    def hurry(self) -> None:
        """Repeat what has failed at once, and without long pauses from now on; for any thread."""
        for call in list(self._actions):
            call.hurry()

    def wait_for_quick(self) -> None:
        """Acknowledge what is sent before something that may take long, unless a side call is slow."""
        for call in self._actions:
            while time.monotonic() - call.began < patience.QUICK_SECONDS and not call.is_over(_POLL_SECONDS):
                self._retry.raise_if_abandoned()
        self.acknowledge()

    def acknowledge(self) -> None:
        """Acknowledge the side calls that have succeeded."""
        for call in [call for call in self._actions if call.is_done]:
            del self._actions[call]
            if not self._actions:
                self._acknowledgements.release()

    def finish(self, call_again: Callable[[Callable[[], None], str], bool]) -> None:
        """Wait for the side calls, as everything else is sent.

        Parameters
        ----------
        call_again : callable
            Called with the action and the name of each that fails, for its error; returns whether it succeeds.
        """
        for call in self._actions:
            call.repeat_no_more()
        for call, action in list(self._actions.items()):
            self.waits_for = call.name
            with self._patience.wait_for_call(call.began):
                while not call.is_over(_POLL_SECONDS):
                    self._retry.raise_if_abandoned()
            self.waits_for = None
            if not call.is_done:
                call.is_done = call_again(action, call.name)
            if not call.is_done:
                self._acknowledgements.note_gap()
                del self._actions[call]
        self.acknowledge()
