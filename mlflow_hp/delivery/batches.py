"""Write metrics, params and tags to one run, in full batches, with one rule for items that MLflow does not accept.

The rule, the same for trainings and searches:

1. Items that MLflow has not acknowledged stay.
2. After a call that fails, a tag is written to the same run: the control. If that is not accepted either, the store or
   the run is at fault (an outage, an expired token, a deleted run): all items stay, and are retried.
3. If the control is accepted, the batch is split in halves, down to the item that fails alone.
4. An item that is refused repeatedly, while the control is accepted each time in between, is refused for its content:
   it is set aside, and blocks nothing. Fewer refusals are enough if the server says that the content is at fault.
5. A 401, 403 or 404 is not a verdict on content, even then: such an item stays, and later items are written.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.tracking.server_health import blames_content, denies_access
from mlflow_hp.tracking.tags import REFUSED_AT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import mlflow

Item: TypeAlias = Metric | Param | RunTag

ITEMS_PER_CALL = 990
"""Items in one call; MLflow accepts 1000, and a few tags may be added."""
PARAMS_PER_CALL = 90
"""Params in one call, and tags, of which MLflow accepts 100 each."""
REFUSALS = 3
"""Consecutive refusals of an item, with the control accepted each time, after which its content is at fault."""
REFUSALS_WITHOUT_CAUSE = 10
"""Same number if the server does not say that the content is at fault."""


class BatchWriter:
    """Writes items to one run.

    Parameters
    ----------
    client : MlflowClient
    run_id : str
        Id of the run.
    set_aside : callable
        Called with each item that is refused for its content, and the error; keeps the item elsewhere.
    on_written : callable, optional
        Called with the items of each accepted call. Defaults to nothing.
    extra_tags : callable, optional
        Returns up to ten tags that are written with each call. Defaults to none.
    call_mlflow : callable, optional
        Makes the given call to MLflow. Defaults to making it at once.
    call_control : callable, optional
        Makes the given call for the control, after a call that failed. Defaults to making it at once.
    """

    def __init__(
        self,
        client: mlflow.MlflowClient,
        run_id: str,
        set_aside: Callable[[Item, Exception], object],
        *,
        on_written: Callable[[list[Item]], object] = lambda _: None,
        extra_tags: Callable[[], Iterable[RunTag]] = lambda: (),
        call_mlflow: Callable[[Callable[[], object]], object] = lambda call: call(),
        call_control: Callable[[Callable[[], object]], object] = lambda call: call(),
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._set_aside = set_aside
        self._on_written = on_written
        self._extra_tags = extra_tags
        self._call_mlflow = call_mlflow
        self._call_control = call_control
        self._n_refused: Counter[str] = Counter()

    def write(self, items: list[Item]) -> Exception | None:
        """Write `items`, and remove from the list those that are written or set aside.

        Returns
        -------
        Exception or None
            Error for the items that stay although the run accepts others; None if no item is left.

        Raises
        ------
        Exception
            If the run accepts nothing now. Items that stay in `items` are to be written later.
        """
        batches = list(reversed(_split(items)))
        denied: list[Item] = []
        first_error: Exception | None = None
        try:
            while batches:
                batch = batches.pop()
                try:
                    error = self._write_batch(batch, batches)
                except BaseException:
                    batches.append(batch)
                    raise
                if error is not None:
                    denied, first_error = [*denied, *batch], first_error or error
        finally:
            items[:] = [*(item for batch in reversed(batches) for item in batch), *denied]
        return first_error

    def error_of(self, call: Callable[[], object]) -> Exception | None:
        """Make another call for the run; return its error if the run accepts the control, or None if it succeeds.

        Raises
        ------
        Exception
            If the call fails, and the run accepts nothing now.
        """
        try:
            call()
        except Exception as raised:  # noqa: BLE001 - returned or raised
            error = raised
        else:
            return None
        try:
            self.write_control()
        except Exception:  # noqa: BLE001 - the store or the run is at fault, and the first error says how
            raise error from None
        return error

    def write_control(self) -> None:
        """Write the control; raise if it is not accepted."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._call_control(
            lambda: self._client.log_batch(self._run_id, metrics=[], params=[], tags=[RunTag(REFUSED_AT_TAG, now)])
        )

    def is_refused(self, call: Callable[[], object], error: Exception) -> bool:
        """Return whether a call is refused for its content, after it has raised `error` once.

        Returns
        -------
        bool
            False if the call has succeeded meanwhile.

        Raises
        ------
        Exception
            If the run accepts nothing now.
        """
        for _ in range((REFUSALS if blames_content(error) else REFUSALS_WITHOUT_CAUSE) - 1):
            if self.error_of(call) is None:
                return False
        self.write_control()  # twice in succession: two servers may answer in turn, of which one is at fault
        return True

    def _write_batch(self, batch: list[Item], batches: list[list[Item]]) -> Exception | None:
        """Write a batch, or add its halves to `batches`; return the error if it is a single item that has to stay."""
        error = self.error_of(lambda: self._log(batch))
        if error is None:
            return None
        if len(batch) == 1:
            return self._judge(batch[0], error)
        by_name = sorted(batch, key=lambda item: str(item.key))  # so that items of one name come into one half
        half = len(batch) // 2
        batches += [by_name[half:], by_name[:half]]
        return None

    def _judge(self, item: Item, error: Exception) -> Exception | None:
        """Set an item aside if it is refused for its content; return the error if it has to stay."""
        is_known = self._n_refused[item.key] >= REFUSALS
        if not is_known and not self.is_refused(lambda: self._log([item]), error):
            return None
        if isinstance(item, Param) and self._is_logged(item):
            return None  # the program has logged it meanwhile: its value stays
        self._n_refused[item.key] += 1
        if denies_access(error):
            return error
        self._set_aside(item, error)
        return None

    def _is_logged(self, param: Param) -> bool:
        with contextlib.suppress(Exception):
            return param.key in self._client.get_run(self._run_id).data.params
        return False

    def _log(self, items: list[Item]) -> None:
        by_kind: dict[type, list[Any]] = {Metric: [], Param: [], RunTag: []}
        for item in (*items, *self._extra_tags()):
            by_kind[type(item)].append(item)
        metrics, params, tags = by_kind.values()
        self._call_mlflow(lambda: self._client.log_batch(self._run_id, metrics=metrics, params=params, tags=tags))
        self._on_written(items)


def _split(items: Sequence[Item]) -> list[list[Item]]:
    """Split `items`, in order, into batches as large as MLflow accepts in one call."""
    batches, start = [], 0
    while start < len(items):
        remaining = items[start : start + ITEMS_PER_CALL]
        batches.append(list(remaining[: n_per_call(remaining)]))
        start += len(batches[-1])
    return batches


def kind_of(item: Item) -> str:
    """Return the kind of an item: "metric", "param" or "tag"."""
    return {Metric: "metric", Param: "param", RunTag: "tag"}[type(item)]


def n_per_call(items: Sequence[Item]) -> int:
    """Number of `items`, from the first, that MLflow accepts in one call."""
    n_by_kind: Counter[type] = Counter()
    for n, item in enumerate(items[:ITEMS_PER_CALL]):
        kind = type(item)
        if kind is not Metric and n_by_kind[kind] >= PARAMS_PER_CALL:
            return n
        n_by_kind[kind] += 1
    return min(len(items), ITEMS_PER_CALL)
