"""Health of a tracking server, and the meaning of MLflow's errors: an outage, or content that it refuses."""

from __future__ import annotations

import logging
import re
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
"""Least HTTP status that counts as an outage of the server."""
_CONTENT_STATUSES = (400, 413, 422)
_ACCESS_STATUSES = (401, 403, 404)
_REPORTED_STATUS = re.compile(r"failed with error code (\d{3})\b")
"""Format in which MLflow reports the status of a response that is not from its own server, such as a proxy's."""

T = TypeVar("T")


def ensure_reachable(tracking_uri: str | None = None, seconds: float = 5.0, *, option: str = "") -> None:
    """Check that a tracking server answers, within seconds; MLflow's own calls fail only after minutes.

    The request is MLflow's own, with its certificates, proxies, tokens, headers and open connections.

    Parameters
    ----------
    tracking_uri : str, optional
        Defaults to the active tracking URI. Stores that are not behind a server are not checked.
    seconds : float
        Longest wait for the server. Defaults to 5.
    option : str
        Option of a command that has named the server. Defaults to none: it is set by MLFLOW_TRACKING_URI.

    Raises
    ------
    UserError
        If it does not answer.
    """
    tracking_uri = tracking_uri or mlflow.get_tracking_uri()
    if not tracking_uri.startswith(("http://", "https://")):
        return
    try:
        answer = http_request(
            get_default_host_creds(tracking_uri),
            "/health",
            "GET",
            max_retries=0,
            timeout=seconds,
            raise_on_status=False,
        )
        status = answer.status_code
    except Exception as error:
        raise _outage(tracking_uri, masked(str(error)), option) from error
    if status >= SERVER_ERROR:
        raise _outage(tracking_uri, f"it answers {status}", option)


def _outage(tracking_uri: str, reason: str, option: str) -> UserError:
    remedy = (
        f"name another store with {option}"
        if option
        else "set MLFLOW_TRACKING_URI to another (unset, runs are stored in ./mlflow.db)"
    )
    return UserError(f"the tracking server {masked(tracking_uri)} does not answer ({reason}): start it, or {remedy}")


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run `call` in a thread and return its result; after `seconds` it is left running, and its result is ignored.

    Raises
    ------
    TimeoutError
        If it takes longer.
    Exception
        Any that `call` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001 - raised below, in the calling thread
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
    """Whether an error may be due to the content sent: MLflow says so, or it is too large or cannot be serialized.

    A deleted run causes the same errors: the content is to blame only if the run accepts other content.
    """
    if isinstance(error, MlflowException):
        codes = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")
        return error.error_code in codes or http_status(error) in _CONTENT_STATUSES
    return isinstance(error, (TypeError, ValueError))


def denies_access(error: Exception) -> bool:
    """Whether an error reports that access is denied or the target does not exist (401, 403, 404)."""
    return isinstance(error, MlflowException) and http_status(error) in _ACCESS_STATUSES


def http_status(error: MlflowException) -> int:
    """HTTP status that an error of MLflow reports; 500 if it reports none."""
    if reported := _REPORTED_STATUS.search(str(error)):
        return int(reported[1])
    return int(error.get_http_status_code())


def reason(error: Exception) -> str:
    """Reason of a failed call of MLflow, on one line."""
    text = str(error)
    if "database is locked" in text:
        return "another process keeps the database locked"
    return masked(" ".join(text.split()))[:300]


def silence_locked_database() -> None:
    """Silence MLflow's errors about a locked database in our threads, which retry, and warn if it stays locked."""
    logger = logging.getLogger("mlflow.store.db.utils")
    if _is_from_program not in logger.filters:
        logger.addFilter(_is_from_program)


def _is_from_program(record: logging.LogRecord) -> bool:
    """Whether a log record is from a thread of the program, not from one of ours."""
    return not (record.threadName or "").startswith("mlflow_hp-")
