"""On the way to MLflow: metrics in full batches, from a background thread that leaves training its time.

What MLflow has not taken is sent again, whatever it said: a token may have expired, a run may be restored. Only what it
refuses while it takes other things for the same run is set aside, item by item, on disk: that blocks nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import mlflow
from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import blames_content, ensure_reachable, hush_outages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlflow_hp.delivery.metric_points import Points

FULL_BATCH = 990
"""Metrics in one call; MLflow takes 1000 things, params and tags among them."""
OTHERS_AT_ONCE = 100
"""Params, and tags, that MLflow takes in one call."""
SHARE_OF_TIME = 0.05
"""Share of the time that writing may take while training runs; it and training compete for Python's lock."""
FIRST_SECONDS = 1.0
"""Nothing is written before a training has run for so long: a shorter one is written at its end."""
OLDEST_SECONDS = 5.0
"""A batch that is not full is sent when it has waited for this long."""
LONGEST_PAUSE_SECONDS = 30.0
"""Pause between two attempts to reach a store that fails."""
PATIENCE_SECONDS = 10.0
"""How long `flush` waits, in all; and how long `wait` does for a store that fails, or takes longer than it should."""
QUICK_SECONDS = 2.0
"""A call that comes back so soon is waited for, however many there are."""
SLOWEST_UPLOAD = 10 * 2**20
"""Bytes a second: an upload that is slower is not waited for longer than `PATIENCE_SECONDS`."""
PROOFS = 3
"""How often MLflow has to refuse an item, and to take another thing in between, until that is set aside."""
PROOFS_OF_A_FAILURE = 10
"""The same where it does not say that the item is to blame."""
ATTEMPTS = 3
"""How often an action is tried that fails while MLflow takes other things: its artifact store may be another's."""
CONTROL = "mlflow_hp.refused_at"
"""The tag with the time of a refusal: written to see whether MLflow takes anything of a run."""

Item: TypeAlias = Metric | Param | RunTag


class _Task(NamedTuple):
    """Items to be made and sent, from the disk or (`asks`) from what MLflow says; or something to be done."""

    make_items: Callable[[], Iterable[Item]] | None = None
    asks: bool = False
    do: Callable[[], None] | None = None
    what: str = "a part of what was recorded"
    waits: Callable[[], bool] | None = None
    seconds: float = 0.0
    record: int | None = None


class _AbandonedError(Exception):
    """Nobody waits for the rest any more."""


class Sender:
    """Writes to one run of MLflow in the background, and tries a store that fails again while training goes on.

    What is submitted is a function that makes the items when their turn comes: so the backlog of a slow store takes no
    memory.

    Parameters
    ----------
    run_id : str
        The run.
    tracking_uri : str, optional
        Where it is; by default the tracking URI in force.
    on_acknowledged : callable, optional
        Given, each time that MLflow has taken more, the number of the journal's records that it has all of.
    on_trouble : callable, optional
        Given a sentence when the store begins to fail, and when it is back.
    set_aside : callable, optional
        Given a metric, param or tag that MLflow refuses, and why; when it returns that has to be kept.

    Attributes
    ----------
    sent, submitted : int
        Metric points that MLflow has, and that it is to have.
    error : Exception or None
        Why the last attempt to write failed; None where it did not.
    n_refused, n_unreadable : int
        Items that were set aside; functions whose items could not be made.
    refusal, unreadable : Exception or None
        Why, the first time.
    undone : dict of str to Exception
        What could not be brought to MLflow while it took other things, and why.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None = None,
        *,
        on_acknowledged: Callable[[int], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
        set_aside: Callable[[Item, str], None] | None = None,
    ) -> None:
        self.sent = self.submitted = self.n_refused = self.n_unreadable = 0
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        self.unreadable: Exception | None = None
        self.undone: dict[str, Exception | None] = {}
        self._run_id = run_id
        self._tracking_uri = tracking_uri or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self._tracking_uri)
        self._on_acknowledged = on_acknowledged or (lambda _: None)
        self._on_trouble = on_trouble or (lambda _: None)
        self._set_aside = set_aside or (lambda _, __: None)
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._abandoned = threading.Event()
        self._asking_since: float | None = None
        self._good_seconds = 0.0
        self._waiting: list[Item] = []
        self._progress: dict[str, str] = {}
        self._taken = self._handled = 0
        self._complete = True
        self._refusals: Counter[str] = Counter()
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._not_before = time.monotonic() + FIRST_SECONDS
        hush_outages()
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-sender", daemon=True)
        self._thread.start()

    def submit(
        self,
        count: int,
        make_points: Callable[[], Points],
        record: int | None = None,
        progress: Callable[[], Mapping[str, str]] | None = None,
        waits: Callable[[], bool] | None = None,
    ) -> None:
        """Have the `count` points that `make_points` will give written, after all those before.

        The tags that `progress` gives are written with them: how far the run is then. Where `waits` says that
        `make_points` would have to wait for something, what is there is written first.
        """
        self.submitted += count

        def make_items() -> Iterator[Item]:
            points = make_points()
            if progress is not None:
                self._progress |= progress()
            return (Metric(*point) for point in points)

        self._queue.put(_Task(make_items, record=record, waits=waits))

    def describe(self, make_items: Callable[[], Iterable[Item]], record: int | None = None) -> None:
        """Have items written, after all those before; `make_items` may ask MLflow for what it has."""
        self._queue.put(_Task(make_items, asks=True, record=record))

    def do(self, what: str, action: Callable[[], None], n_bytes: int = 0) -> None:
        """Have `action` done, which brings `what` to MLflow, `n_bytes` long; again, where the store fails."""
        self._queue.put(_Task(do=action, what=what, seconds=n_bytes / SLOWEST_UPLOAD))

    def flush(self, on_progress: Callable[[], object] | None = None) -> bool:
        """Write what is left without pauses, for as long as `PATIENCE_SECONDS`; nothing may be submitted after that.

        Parameters
        ----------
        on_progress : callable, optional
            Called some times a second meanwhile.

        Returns
        -------
        bool
            Whether the end was reached. Where it was not, MLflow goes on taking what is left: `wait` for it.

        Raises
        ------
        Exception
            Why MLflow does not take it; nothing more is sent then.
        """
        self._hurry.set()
        self._queue.put(None)
        until = time.monotonic() + PATIENCE_SECONDS
        with self._given_up_on_error():
            while self._thread.is_alive() and time.monotonic() < until:
                self._thread.join(0.1)
                if on_progress is not None:
                    on_progress()
            if not self._thread.is_alive():
                return True
            since = self._asking_since
            if self.error is not None or (since is not None and time.monotonic() - since > QUICK_SECONDS):
                raise self.error or TimeoutError(f"MLflow has not answered for {PATIENCE_SECONDS:g} s")
        return False

    def wait(self, on_progress: Callable[[], object] | None = None) -> None:
        """Wait for the rest as long as MLflow takes it: what it is slow with, or fails at, may take as long as `flush`.

        Parameters
        ----------
        on_progress : callable, optional
            As for `flush`.

        Raises
        ------
        Exception
            As `flush`.
        """
        spent, last, good = 0.0, time.monotonic(), self._good_seconds
        with self._given_up_on_error():
            while self._thread.is_alive():
                self._thread.join(0.1)
                if on_progress is not None:
                    on_progress()
                now = time.monotonic()
                if self._asking_since is not None or self.error is not None:
                    spent += now - last
                last = now
                if spent - (self._good_seconds - good) > PATIENCE_SECONDS and self._thread.is_alive():
                    raise self.error or TimeoutError(f"MLflow has not answered for {PATIENCE_SECONDS:g} s")

    @contextlib.contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        """Have nothing more sent where the block is left by an exception; raise what ended the sending."""
        try:
            yield
        except BaseException:
            self._abandoned.set()
            raise
        if not self._thread.is_alive() and self.error is not None:
            raise self.error

    @property
    def complete(self) -> bool:
        """Whether MLflow has, or refuses, all that has come so far, and nothing failed."""
        return self._complete and self.error is None and self._handled == self._taken

    def _work(self) -> None:
        try:
            self._send_all()
        except _AbandonedError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, `flush` raises it
            self.error = error

    def _send_all(self) -> None:
        oldest = time.monotonic()
        while True:
            task: _Task | None = _Task()
            with contextlib.suppress(queue.Empty):
                task = self._queue.get(timeout=OLDEST_SECONDS)
            if task is None:
                break
            if not self._waiting:
                oldest = time.monotonic()
            while self._waiting and task.waits is not None and task.waits():
                self._send()
            self._take(task)
            while len(self._waiting) >= FULL_BATCH:
                self._send()
            if self._waiting and time.monotonic() - oldest > OLDEST_SECONDS:
                self._send()
        while self._waiting:
            self._send()

    def _take(self, task: _Task) -> None:
        self._rest()
        if task.do is not None:
            while self._waiting:
                self._send()
            done = self._done(task.do, task.what, task.seconds)
        else:
            done = task.make_items is None or self._made(task.make_items, asks=task.asks)
        self._complete &= done
        if task.record is not None and self._complete:  # none is acknowledged behind one that is not done
            self._unacknowledged.append((self._taken, task.record))
            self._acknowledge()

    def _made(self, make_items: Callable[[], Iterable[Item]], *, asks: bool) -> bool:
        """Whether the items were made, and wait now; they are not where the disk does not give back what was there."""
        items: list[Item] = []
        if asks:
            done = self._done(lambda: items.extend(make_items()), "params and tags")
        else:
            began = time.monotonic()
            try:
                items, done = list(make_items()), True
            except Exception as error:  # noqa: BLE001 - what comes behind it is sent all the same
                self.n_unreadable += 1
                self.unreadable, done = self.unreadable or error, False
            self._worked_since(began)
        self._waiting += items
        self._taken += len(items)
        return done

    def _done(self, action: Callable[[], None], what: str, seconds: float = 0.0) -> bool:
        """Whether an action was done; where MLflow takes other things all the while, it is given up, and told."""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._abandoned.wait(1.0)
            error = self._until_it_works(action, seconds)
            if error is None:
                return True
        self.undone[what] = error
        return False

    def _send(self) -> None:
        """Write the oldest items, as many as MLflow takes in a call."""
        n, others = 0, Counter[type]()
        while n < min(len(self._waiting), FULL_BATCH):
            kind = type(self._waiting[n])
            if kind is not Metric and others[kind] >= OTHERS_AT_ONCE - len(self._progress):
                break
            others[kind] += 1
            n += 1
        self._write(self._waiting[:n])
        del self._waiting[:n]
        self._handled += n
        self._acknowledge()

    def _write(self, items: list[Item]) -> None:
        """Write items; those that MLflow refuses are found by halves, and set aside."""
        error = self._until_it_works(lambda: self._log(items))
        if error is None:
            self.sent += sum(isinstance(item, Metric) for item in items)
        elif len(items) == 1:
            self._write_one(items[0], error)
        else:
            items = sorted(items, key=lambda item: str(item.key))  # what is of one name is in one half
            self._write(items[: len(items) // 2])
            self._write(items[len(items) // 2 :])

    def _write_one(self, item: Item, error: Exception) -> None:
        """Write an item that MLflow has refused; again, until it is shown that it is to blame."""
        known = self._refusals[item.key] >= PROOFS
        for _ in range(0 if known else (PROOFS if blames_content(error) else PROOFS_OF_A_FAILURE) - 1):
            again = self._until_it_works(lambda: self._log([item]))
            if again is None:
                self.sent += isinstance(item, Metric)
                return
        if isinstance(item, Param) and self._is_logged(item):
            return  # by the user, meanwhile: that it stays
        self._refusals[item.key] += 1
        self.n_refused += 1
        self.refusal = self.refusal or error
        self._set_aside(item, str(error))

    def _is_logged(self, param: Param) -> bool:
        with contextlib.suppress(Exception):
            return param.key in self._client.get_run(self._run_id).data.params
        return False

    def _log(self, items: Iterable[Item]) -> None:
        by_kind: dict[type, list[Any]] = {Metric: [], Param: [], RunTag: []}
        for item in items:
            by_kind[type(item)].append(item)
        tags = by_kind[RunTag] + [RunTag(*tag) for tag in self._progress.items()]
        self._client.log_batch(self._run_id, metrics=by_kind[Metric], params=by_kind[Param], tags=tags)

    def _acknowledge(self) -> None:
        """Tell which records of the journal MLflow has all of."""
        done = None
        while self._unacknowledged and self._unacknowledged[0][0] <= self._handled:
            done = self._unacknowledged.popleft()[1]
        if done is not None:
            self._on_acknowledged(done + 1)

    def _until_it_works(self, write: Callable[[], None], seconds: float = 0.0) -> Exception | None:
        """Do it; try again as long as MLflow takes nothing.

        Gives what it raised where MLflow takes other things.
        """
        pause = 1.0
        while True:
            self._rest()
            began = self._asking_since = time.monotonic()
            try:
                ensure_reachable(self._tracking_uri)
                write()
            except Exception as error:  # noqa: BLE001 - told, and tried again
                if self._takes_anything():
                    self._asking_since = None
                    self._worked_since(began)
                    return error
                self._asking_since = None
                self._fail(error)
                self._not_before = time.monotonic() + pause
                if self._hurry.is_set():
                    self._abandoned.wait(min(pause, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self._asking_since = None
            self._recover()
            took = time.monotonic() - began
            if took < QUICK_SECONDS + seconds:
                self._good_seconds += took
            self._worked_since(began)
            return None

    def _takes_anything(self) -> bool:
        """Whether MLflow takes something else of the run now."""
        try:
            ensure_reachable(self._tracking_uri)
            self._client.log_batch(
                self._run_id, tags=[RunTag(CONTROL, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))]
            )
        except Exception:  # noqa: BLE001 - it is the state of the store, and not what was sent
            return False
        self._recover()
        return True

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self._on_trouble(f"MLflow does not take what is recorded, which is kept meanwhile: {masked(str(error))}")
        self.error = error

    def _recover(self) -> None:
        if self.error is not None:
            self.error = None
            self._on_trouble("MLflow takes again what is recorded")

    def _rest(self) -> None:
        """Leave the time to the training until it is our turn; once it has ended, do not."""
        self._hurry.wait(max(0.0, self._not_before - time.monotonic()))
        if self._abandoned.is_set():
            raise _AbandonedError

    def _worked_since(self, began: float) -> None:
        """Earn the pause for work that began at `began`."""
        now = time.monotonic()
        self._not_before = max(self._not_before, now) + (now - began) * (1 / SHARE_OF_TIME - 1)
