"""A lock that lies in the target itself, as tags of an experiment: it holds between processes and between machines.

MLflow has no operation that writes only where nobody else has written. So this is Lamport's bakery algorithm, which
needs no more than that each claimant writes a tag of its own and reads those of all: who comes takes a number above all
that there are, and waits for those with a lower one. The tags of claimants that are gone expire: who lives alters its
own every few seconds, and a tag that has not changed for ``PATIENCE_SECONDS`` by the clock of who waits is removed.

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

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow import MlflowClient

CLAIM = "mlflow_hp.sync."
"""So begin the names of claims' tags."""
PATIENCE_SECONDS = 60.0
"""For so long a claimant may say nothing before it counts as gone."""

_RELEASED = "released"
"""A claim that is none any more, on servers that can't remove tags of experiments."""
_POLL_SECONDS = 0.3
_ATTEMPTS = 5


class Claim(NamedTuple):
    """A claim as its tag tells of it.

    Attributes
    ----------
    number : int
        The place in the queue; 0 while the claimant still chooses it.
    beat : int
        Grows as long as the claimant lives.
    by : str
        Who that is, for people.
    """

    number: int
    beat: int
    by: str


class Lock:
    """A lock named `name` of an experiment, held within a ``with`` block.

    Parameters
    ----------
    client : MlflowClient
        Of the store.
    experiment_id : str
    name : str
        Of word characters.
    on_wait : callable, optional
        Told once who holds the lock, if it takes more than a moment.
    """

    def __init__(
        self, client: MlflowClient, experiment_id: str, name: str, on_wait: Callable[[str], object] | None = None
    ) -> None:
        self._client, self._experiment_id, self._on_wait = client, experiment_id, on_wait
        self._prefix = f"{CLAIM}{name}."
        self._key = self._prefix + uuid.uuid4().hex
        self._own = Claim(0, 0, f"{_user()} on {socket.gethostname()}")
        self._writing, self._end = threading.Lock(), threading.Event()
        self._written = 0.0
        self._lost = False

    def __enter__(self) -> Self:
        """Wait for the lock, as long as those live who came first."""
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
        """Let the next one in."""
        self._end.set()
        self._beating.join()
        with contextlib.suppress(Exception):  # a claim that can't be removed expires
            if not self._lost:
                self._remove(self._key)

    def ensure_held(self) -> None:
        """Raise UserError where others may take the lock for free: this process was suspended, or not heard of."""
        if self._lost or _now() - self._written > PATIENCE_SECONDS / 2:
            self._lost = True
            raise UserError(
                f"the target has not heard of this synchronization for {PATIENCE_SECONDS / 2:.0f} seconds, so that "
                "another may have begun: run the command again, it goes on where it was"
            )

    def _wait(self) -> None:
        began, seen, told = _now(), dict[str, tuple[Claim, float]](), False
        while True:
            self.ensure_held()
            before = None
            for key, claim in self._claims().items():
                if key == self._key:
                    continue
                if key not in seen or seen[key][0] != claim:
                    seen[key] = claim, _now()
                if _now() - seen[key][1] > PATIENCE_SECONDS:
                    self._remove(key)
                elif (claim.number, key) < (self._own.number, self._key):  # one that still chooses, too
                    before = claim
            if before is None:
                return
            if self._on_wait is not None and not told and _now() - began > 3 * _POLL_SECONDS:
                self._on_wait(f"waiting for a synchronization by {before.by}, which brings the same runs to the target")
                told = True
            self._end.wait(_POLL_SECONDS)

    def _claims(self) -> dict[str, Claim]:
        for attempt in range(_ATTEMPTS):
            try:
                tags = self._client.get_experiment(self._experiment_id).tags
                break
            except (MlflowException, OSError):  # a store of files may be read while a tag is removed
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_POLL_SECONDS)
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
        except (MlflowException, AttributeError, OSError):  # removed by another, or a server that can't
            if key in self._client.get_experiment(self._experiment_id).tags:
                self._client.set_experiment_tag(self._experiment_id, key, _RELEASED)

    def _beat(self) -> None:
        while not self._end.wait(PATIENCE_SECONDS / 12):
            with contextlib.suppress(Exception):  # the target is away: the next beat may reach it
                self.ensure_held()
                if self._key in self._claims():
                    self._write()
                else:
                    self._lost = True


def _claim(text: str) -> Claim:
    """A claim; what can't be read, since it is being written, counts as one that still chooses."""
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
    """Seconds, also of those in which the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
