"""Whether a tracking server answers, and what an error of MLflow's says: an outage, or content that it won't take."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, TypeVar

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Callable

SERVER_ERROR = 500
"""HTTP status from which on a server is taken to be away."""

T = TypeVar("T")


def ensure_reachable(tracking_uri: str | None = None, seconds: float = 5.0) -> None:
    """Check in seconds what MLflow itself gives up on after minutes: that a tracking server answers.

    It is asked as MLflow asks it: with its certificates, proxies, tokens, headers and open connections.

    Parameters
    ----------
    tracking_uri : str, optional
        By default the one in force. Stores that are not behind http are taken to be there.
    seconds : float
        How long to wait for the server.

    Raises
    ------
    UserError
        Where it doesn't answer.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    try:
        answer = http_request(
            get_default_host_creds(uri), "/health", "GET", max_retries=0, timeout=seconds, raise_on_status=False
        )
        status = answer.status_code
    except Exception as error:
        raise _away(uri, masked(str(error))) from error
    if status >= SERVER_ERROR:
        raise _away(uri, f"it answers {status}")


def _away(uri: str, reason: str) -> UserError:
    return UserError(
        f"the tracking server {masked(uri)} does not answer ({reason}): start it, or name another with "
        "MLFLOW_TRACKING_URI (unset, runs go into ./mlflow.db)"
    )


def within(seconds: float, call: Callable[[], T]) -> T:
    """Give what `call` gives, where it comes back in time; what does not goes on in a thread, unheeded.

    Raises
    ------
    TimeoutError
        Where it doesn't.
    Exception
        What it raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - it is raised by who waits
            errors.append(error)

    thread = threading.Thread(target=work, name="mlflow_hp-within", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"MLflow has not answered for {seconds:g} s")
    return results[0]


def blames_content(error: Exception) -> bool:
    """Whether an error says that what was sent is to blame: MLflow's codes for that, or no message could be made of it.

    A deleted run is told with the same codes: that other things are taken of the run has to be shown first.
    """
    if isinstance(error, MlflowException):
        return error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
    return isinstance(error, (TypeError, ValueError))


def hush_outages() -> None:
    """Have MLflow not print, from our threads, that a database is locked: we try again, and tell where it stays so."""
    logger = logging.getLogger("mlflow.store.db.utils")
    if _is_not_ours not in logger.filters:
        logger.addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith("mlflow_hp-")
