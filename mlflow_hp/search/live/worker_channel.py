"""Channel from the workers of a search to the recording process: small messages while the fits run."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import threading
import time
import uuid
from multiprocessing.connection import Client, Listener
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.dask import separate_generator
from mlflow_hp.search.live.events import Address, Question

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection


POLL_SECONDS = 0.1
"""Interval at which a reader checks whether its inbox is closed."""

LAST_MESSAGES_SECONDS = 5.0
"""Longest time that a closed inbox still reads messages already sent."""


class Inbox:
    """Receives messages from threads of this process, other processes of this machine, and workers of a Dask cluster.

    Parameters
    ----------
    take : callable
        Called with each message, from any thread.
    answer : callable, optional
        Called with the subject of a question; returns the answer. Defaults to answering None.
    """

    def __init__(self, take: Callable[[Any], None], answer: Callable[[Any], Any] | None = None) -> None:
        self.received = 0
        self.answer = answer or (lambda _: None)
        self._take = take
        self._key = uuid.uuid4().hex
        self._secret = secrets.token_bytes(32)
        self._listener: Listener | None = None
        self._cluster: Any = None
        self._until_closed = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []
        self._deadline = 0.0
        _inboxes[self._key] = self

    def address(self, others: bool = False, cluster: Any = None) -> Address:
        """Address to send to from threads; with `others` from other processes too, with a Dask client from Dask."""
        if cluster is not None and self._cluster is None:
            self._cluster = cluster
            self._until_closed.enter_context(separate_generator())  # covers the refit, in this process
            cluster.subscribe_topic(self._key, lambda event: self.put(pickle.loads(event[1])))  # noqa: S301 - Dask's own
        if others and self._listener is None:
            self._listener = Listener(authkey=self._secret)
            self._accepting = threading.Thread(target=self._accept, name="mlflow_hp-inbox", daemon=True)
            self._accepting.start()
        socket = None if self._listener is None else str(self._listener.address)
        return Address(self._key, os.getpid(), socket, self._secret, self._cluster is not None)

    def put(self, message: Any) -> None:
        """Take a message."""
        with self._lock:
            self.received += 1
        self._take(message)

    def close(self) -> None:
        """Read the messages already sent by other processes of this machine, then stop receiving."""
        self._deadline = time.monotonic() + LAST_MESSAGES_SECONDS
        _inboxes.pop(self._key, None)
        if self._cluster is not None:
            with contextlib.suppress(Exception):  # the cluster may be down
                self._cluster.unsubscribe_topic(self._key)
        self._until_closed.close()
        if self._listener is not None:
            with contextlib.suppress(OSError):  # wakes the thread that accepts
                Client(self._listener.address, authkey=self._secret).close()
            self._accepting.join(LAST_MESSAGES_SECONDS)
            self._listener.close()
        for reader in self._readers:
            reader.join(LAST_MESSAGES_SECONDS)

    def _accept(self) -> None:
        assert self._listener is not None
        while self._key in _inboxes:
            with contextlib.suppress(Exception):  # a worker that died while connecting, or a wrong secret
                arguments = (self._listener.accept(),)
                reader = threading.Thread(target=self._read, args=arguments, name="mlflow_hp-inbox", daemon=True)
                reader.start()
                self._readers.append(reader)

    def _read(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, OSError):
            while self._key in _inboxes or (connection.poll() and time.monotonic() < self._deadline):
                if not connection.poll(POLL_SECONDS):
                    continue
                message = connection.recv()
                if isinstance(message, Question):
                    connection.send(self.answer(message.about))
                else:
                    self.put(message)


class EventSender:
    """Sends the messages of one fit; collects those that cannot be sent in `unsent`."""

    def __init__(self, address: Address) -> None:
        self.unsent: list[Any] = []
        self.n_sent = 0
        self._address = address
        self._connected = address.socket is not None

    @property
    def is_remote(self) -> bool:
        """Whether the inbox is that of another process."""
        return self._address.pid != os.getpid()

    def send(self, message: Any, *, keep: bool = True) -> None:
        """Send a message; if that fails, append it to `unsent` unless `keep` is False."""
        if not self.is_remote:
            inbox = _inboxes.get(self._address.key)
            if inbox is not None:
                inbox.put(message)
                self.n_sent += 1
            return
        try:
            if self._address.on_dask:
                from distributed import get_worker

                get_worker().log_event(self._address.key, pickle.dumps(message))
                self.n_sent += 1
                return
            if self._connected:
                _connection(self._address).send(message)
                self.n_sent += 1
                return
        except Exception:  # noqa: BLE001 - it is returned with the fit's result
            _connections.pop(self._address.key, None)
            self._connected = False
        if keep:
            self.unsent.append(message)

    def ask(self, about: Any) -> Any:
        """Ask a question, and return the inbox's answer; None if there is no connection."""
        if not self.is_remote:
            inbox = _inboxes.get(self._address.key)
            return None if inbox is None else inbox.answer(about)
        try:
            if self._connected:
                connection = _connection(self._address)
                connection.send(Question(about))
                return connection.recv()
        except Exception:  # noqa: BLE001 - the fit goes on without an answer
            self._connected = False
        return None


def _connection(address: Address) -> Connection:
    assert address.socket is not None
    if address.key not in _connections:
        _connections.clear()  # of searches that have ended
        _connections[address.key] = Client(address.socket, authkey=address.secret)
    return _connections[address.key]


_inboxes: dict[str, Inbox] = {}

_connections: dict[str, Connection] = {}
