"""Lock kept as tags of an experiment of the target, so that it holds between processes and between machines.

MLflow has no atomic compare-and-set. Lamport's bakery algorithm needs none: each claimant writes a tag of its own and
reads those of all. A new claimant takes a number above all others, and waits for those with a lower one. Claims of dead
processes expire: a living claimant updates its tag every few seconds, and a tag that has not changed for
``PATIENCE_SECONDS`` by the clock of a waiting process is removed.

L. Lamport: A new solution of Dijkstra's concurrent programming problem. Communications of the ACM 17 (8), 1974.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, Self

from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.tags import SYNC_CLAIM_TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

PATIENCE_SECONDS = 60.0
"""A claim that has not changed for this long counts as abandoned."""

_RELEASED = "released"
"""Value of a released claim, on servers that cannot remove tags of experiments."""
POLL_SECONDS = 0.3
_ATTEMPTS = 5


class Claim(NamedTuple):
    """Contents of a claim's tag.

    Attributes
    ----------
    number : int
        Place in the queue; 0 while the claimant chooses it.
    beat : int
        Heartbeat; grows as long as the claimant lives.
    by : str
        User and host, for messages.
    """

    number: int
    beat: int
    by: str


class Lock:
    """Lock of an experiment, held within a ``with`` block.

    Parameters
    ----------
    client : MlflowClient
        Client of the target.
    experiment_id : str
    name : str
        Name of the lock, of word characters.
    on_wait : callable, optional
        Called once with a message that says who holds the lock, if the wait takes more than a moment.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, name: str, on_wait: Callable[[str], object] | None = None
    ) -> None:
        self._client, self._experiment_id, self._on_wait = client, experiment_id, on_wait
        self._prefix = f"{SYNC_CLAIM_TAG_PREFIX}{name}."
        self._key = self._prefix + uuid.uuid4().hex
        self._own = Claim(0, 0, f"{_user()} on {socket.gethostname()}")
        self._writing, self._end = threading.Lock(), threading.Event()
        self._written = 0.0
        self._lost = False

    def __enter__(self) -> Self:
        """Wait for the lock, as long as earlier claimants live."""
        self._write()
        self._beating = threading.Thread(target=self._beat, name="mlflow-hp lock", daemon=True)
        self._beating.start()
        try:
            highest = max((claim.number for claim in self._claims().values()), default=0)
            self._write(number=highest + 1)
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._end.set()
        self._beating.join()
        with contextlib.suppress(Exception):  # a claim that cannot be removed expires
            if not self._lost:
                self._remove(self._key)

    def ensure_held(self) -> None:
        """Raise UserError if others may take the lock for free: this process was suspended, or lost its connection."""
        if self._lost or _now() - self._written > PATIENCE_SECONDS / 2:
            self._lost = True
            raise UserError(
                f"the target has not heard from this sync for {PATIENCE_SECONDS / 2:.0f} seconds, so another one may "
                "have begun: run the command again, it resumes where it stopped"
            )

    def _wait(self) -> None:
        began, seen, announced = _now(), dict[str, tuple[Claim, float]](), False
        while True:
            self.ensure_held()
            ahead = None
            for key, claim in self._claims().items():
                if key == self._key:
                    continue
                if key not in seen or seen[key][0] != claim:
                    seen[key] = claim, _now()
                if _now() - seen[key][1] > PATIENCE_SECONDS:
                    self._remove(key)
                elif (claim.number, key) < (self._own.number, self._key):  # also one that still chooses its number
                    ahead = claim
            if ahead is None:
                return
            if self._on_wait is not None and not announced and _now() - began > 3 * POLL_SECONDS:
                self._on_wait(f"waiting for a sync by {ahead.by}, which copies the same runs to the target")
                announced = True
            self._end.wait(POLL_SECONDS)

    def _claims(self) -> dict[str, Claim]:
        for attempt in range(_ATTEMPTS):
            try:
                tags = self._client.get_experiment(self._experiment_id).tags
                break
            except (MlflowException, OSError):  # in a file store, a tag may be removed while it is read
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(POLL_SECONDS)
        claims = {key: text for key, text in tags.items() if key.startswith(self._prefix) and text != _RELEASED}
        return {key: _claim(text) for key, text in claims.items()}

    def _write(self, number: int | None = None) -> None:
        with self._writing:
            self._own = Claim(self._own.number if number is None else number, self._own.beat + 1, self._own.by)
            began = _now()
            self._client.set_experiment_tag(self._experiment_id, self._key, json.dumps(self._own._asdict()))
            self._written = began

    def _remove(self, key: str) -> None:
        try:
            self._client.delete_experiment_tag(self._experiment_id, key)
        except (MlflowException, AttributeError, OSError):  # already removed, or not supported by the server
            if key in self._client.get_experiment(self._experiment_id).tags:
                self._client.set_experiment_tag(self._experiment_id, key, _RELEASED)

    def _beat(self) -> None:
        while not self._end.wait(PATIENCE_SECONDS / 12):
            with contextlib.suppress(Exception):  # the target does not answer: the next beat may reach it
                self.ensure_held()
                if self._key in self._claims():
                    self._write()
                else:
                    self._lost = True


def _claim(text: str) -> Claim:
    """Parse a claim; an unreadable one, such as one being written, counts as still choosing its number."""
    try:
        claim = Claim(**json.loads(text))
        if type(claim.number) is int and claim.number >= 0:
            return claim._replace(by="".join(c for c in str(claim.by)[:80] if c.isprintable()))
    except (ValueError, TypeError):
        pass
    return Claim(0, 0, "someone")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "someone"


def _now() -> float:
    """Seconds of a clock that also runs while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
