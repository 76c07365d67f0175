"""Address of the page of a run, where a tracking server serves it (``mlflow server --app-name mlflow-hp``)."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit, urlunsplit

import mlflow
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.tracking.redaction import masked

PAGE_PATH = "/hp/"
"""Path of the page on a server."""
LOCAL_SERVER = "http://127.0.0.1:5000"
"""Server that `mlflow-hp ui` starts by default."""
PAGE_MARK = "mlflow_hp"
"""What the HTML of the page holds, unlike that of another server that answers to any path."""
SECONDS = 5.0
"""Longest wait for the server."""


class _Servers:
    """Servers of which this process knows whether they serve the page."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serves: dict[str, bool] = {}
        abandon_in_child(self)

    def serves_page(self, tracking_uri: str) -> bool:
        """Whether a server serves the page: one request in a process."""
        with self._lock:
            if tracking_uri not in self._serves:
                self._serves[tracking_uri] = _serves_page(tracking_uri)
            return self._serves[tracking_uri]

    def abandon(self) -> None:
        """In a forked child: replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()


_servers = _Servers()


def page_address(run_id: str = "", tracking_uri: str | None = None) -> str | None:
    """Return the address of the page of a run; None if no server serves it.

    Parameters
    ----------
    run_id : str
        Id of the run. Defaults to ``""``, for the page of all runs.
    tracking_uri : str, optional
        Tracking store. Defaults to the current tracking URI.

    Returns
    -------
    str or None
        ``<tracking server>/hp/run/<run_id>`` without login; None for a store without a server, such as SQLite,
        and for a server that does not serve the page, or does not answer: that is asked once in a process, and takes
        `SECONDS` at most.

    Examples
    --------
    >>> from mlflow_hp.tracking.server_page import page_address
    >>> page_address("0" * 32, "sqlite:///mlflow.db") is None
    True
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")) or not _servers.serves_page(uri):
        return None
    return address_at(_without_login(uri), run_id)


def address_at(server: str, run_id: str = "") -> str:
    """Return the address of the page of a run, or of all, at a server that serves it.

    Parameters
    ----------
    server : str
        Address of the server.
    run_id : str
        Id of the run. Defaults to ``""``, for the page of all runs.
    """
    return f"{server.rstrip('/')}{PAGE_PATH}{f'run/{run_id}' if run_id else ''}"


def _without_login(uri: str) -> str:
    """Leave out user and password of an address, which a browser asks for itself."""
    parts = urlsplit(uri)
    return masked(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


def _serves_page(tracking_uri: str) -> bool:
    try:
        answer = http_request(
            get_default_host_creds(tracking_uri),
            PAGE_PATH,
            "GET",
            max_retries=0,
            timeout=SECONDS,
            raise_on_status=False,
        )
    except Exception:  # noqa: BLE001 - a server that does not answer has no page to link to
        return False
    return answer.status_code == 200 and PAGE_MARK in answer.text
