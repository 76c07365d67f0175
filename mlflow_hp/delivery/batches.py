"""Metrics, params and tags of one run, in as few calls as MLflow allows; what it refuses is found and set aside.

What fails stays to be written, whatever MLflow says: a server that refuses everything for a while, a run that is
deleted and restored, lose nothing. Only where the same run takes everything but one thing is that thing refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.tracking.server_health import blames_content

if TYPE_CHECKING:
    from collections.abc import Callable

    import mlflow

METRICS_AT_ONCE = 800
OTHERS_AT_ONCE = 100
"""MLflow takes 100 params and 100 tags in a call, and 1000 things in all."""
PROOFS = 3
"""How often in turn a thing has to be refused, and another taken."""

Item = tuple[Any, ...]
"""``("metric", name, value, time in seconds since the epoch, step)``, ``("param", name, value)``, or a ``"tag"``."""


class Batches:
    """Writes things to one run.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        The run.
    probe : tuple
        A tag that the run has, to be written again: a run that is well takes it.
    refused : callable
        Given each thing that MLflow refuses for what it is, and the error.
    """

    def __init__(
        self, client: mlflow.MlflowClient, run_id: str, probe: Item, refused: Callable[[Item, Exception], None]
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._probe = probe
        self._refused = refused

    def write(self, items: list[Item]) -> list[Item]:
        """Write `items`, no more than MLflow takes in a call.

        Returns
        -------
        list of tuple
            What is still to be written; and in `error`, why.
        """
        self.error: Exception | None = None
        parts = [items]
        try:
            while parts:
                self._write_part(parts)
        except Exception as error:  # noqa: BLE001 - it is told with what is left
            self.error = error
        return [item for part in reversed(parts) for item in part]

    def _write_part(self, parts: list[list[Item]]) -> None:
        """Write the last of `parts` and take it away; or put its halves there."""
        part = parts[-1]
        try:
            self._log(part)
        except Exception as error:
            if not blames_content(error) and not _is_too_large(error):
                raise
            self._log([self._probe])  # raises where it is not for what was sent
            if len(part) > 1:
                half = len(part) // 2
                parts[-1:] = [part[half:], part[:half]]
                return
            if is_refused(lambda: self._log(part), lambda: self._log([self._probe])):
                self._refused(part[0], error)
        parts.pop()

    def _log(self, items: list[Item]) -> None:
        self._client.log_batch(
            self._run_id,
            metrics=[Metric(name, value, ms(at), step) for kind, name, value, *rest in items if kind == "metric"
                     for at, step in [rest]],
            params=[Param(*item[1:]) for item in items if item[0] == "param"],
            tags=[RunTag(*item[1:]) for item in items if item[0] == "tag"],
        )  # fmt: skip


def is_refused(write: Callable[[], object], probe: Callable[[], object]) -> bool:
    """Whether what `write` writes is refused for what it is; False where it has been written now.

    Raises
    ------
    Exception
        Where nothing is taken now.
    """
    for _ in range(PROOFS):
        try:
            write()
        except Exception as error:
            if not blames_content(error) and not _is_too_large(error):
                raise
        else:
            return False
        probe()
    return True


def _is_too_large(error: Exception) -> bool:
    """Whether a server on the way takes no request of this size."""
    return "413" in str(error)[:200]


def ms(seconds: float) -> int:
    """The same time in milliseconds, as MLflow has it."""
    return round(seconds * 1000)
