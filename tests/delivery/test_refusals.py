"""Temporary and permanent refusals of a server: one rule for trainings and searches."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import mlflow
import pytest
from mlflow.entities import Param, RunTag

from mlflow_hp.delivery import metric_sender, patience, retry, search_sender, time_share
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.delivery.search_sender import SearchSender
from tests.helpers.failing_proxy import ANSWERS, Proxy, refusal
from tests.helpers.servers import Server
from tests.helpers.waiting import wait_for

N_POINTS = 1000
BEGAN = 1_700_000_000
PARAMS = {f"p{i}": str(i) for i in range(5)}
LONG = "x" * 4500
TAGS = {"short": "tag", "long": LONG}
ALL = {*PARAMS, *TAGS, *range(N_POINTS)}
TOLD, BACK = "MLflow does not accept the recorded data", "MLflow accepts the recorded data again"


class PickyProxy(Proxy):
    """Refuses the calls for which `refuses` returns an answer, by their names and the steps of their metrics."""

    refuses = staticmethod(lambda call: None)

    def answer(self, request, body):
        if request.path.endswith("/health"):
            return self.hand_on(request, body)
        answer = self.refuses(_Call(request, body))
        if answer is not None:
            self.refused += 1
            return answer
        return self.hand_on(request, body)


class _Call:
    """Call to the server: its size in bytes, and its params, tags and steps of metrics."""

    def __init__(self, request, body):
        self.n_bytes = len(body)
        self.is_batch = request.path.endswith("/log-batch")
        sent = json.loads(body) if self.is_batch else {}
        self.items = {each["key"] for kind in ("params", "tags") for each in sent.get(kind, [])}
        self.items |= {int(each.get("step", 0)) for each in sent.get("metrics", [])}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    served = Server(tmp_path_factory.mktemp("server"))
    served.start()
    yield served
    served.kill()


@pytest.fixture
def proxy(server, tmp_path, monkeypatch):
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "10")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "on-its-way"))
    monkeypatch.setattr(time_share, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(time_share, "SHARE_OF_TIME", 1.0)
    monkeypatch.setattr(metric_sender, "OLDEST_SECONDS", 0.05)
    monkeypatch.setattr(search_sender, "EVERY_SECONDS", 0.05)
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.8)
    before = mlflow.get_tracking_uri()
    with contextlib.closing(PickyProxy(server.uri)) as proxy:
        mlflow.set_tracking_uri(proxy.uri)
        yield proxy
        mlflow.set_tracking_uri(before)


class Training:
    """Sends params, tags and metrics like a training."""

    def __init__(self, run, told):
        self.refused, self.acknowledged = set(), 0
        self._sender = MetricSender(
            run.info.run_id, on_trouble=told, set_aside=self._set_aside, on_acknowledged=self._acknowledge
        )
        described = [*(Param(*each) for each in PARAMS.items()), *(RunTag(*each) for each in TAGS.items())]
        self._sender.describe(lambda: described, 0)
        points = [("m", float(i), 1000 * BEGAN + i, i) for i in range(N_POINTS)]
        self._sender.submit(N_POINTS, lambda: points, 1)

    def _set_aside(self, item, why):
        self.refused.add(getattr(item, "step", item.key))

    def _acknowledge(self, count):
        self.acknowledged = count

    def end(self):
        with contextlib.suppress(Exception):
            if not self._sender.flush():
                self._sender.wait()
        assert (self.acknowledged == 2) == self._sender.is_complete
        return self._sender.is_complete


class Search:
    """Sends params, tags and metrics like a search."""

    def __init__(self, run, told):
        self._sender = SearchSender(run, told, is_owned=False)
        parent = self._sender.parent
        parent.log_params(PARAMS)
        parent.write_verbatim(TAGS)
        parent.log_metrics([("m", float(i), BEGAN + i / 1000, i) for i in range(N_POINTS)])

    @property
    def refused(self):
        names = {"metric": lambda each: each["value"][2]}
        return {names.get(each["kind"], lambda each: each["name"])(each) for each in self._sender.parent.refused_items}

    def end(self):
        return self._sender.close(patience.PATIENCE_SECONDS, "FINISHED", ends_run=False)


@pytest.fixture(params=[Training, Search])
def deliver(request, proxy, server):
    """Deliver to a new run through the proxy; the object has the data in MLflow, and the messages."""
    client = mlflow.MlflowClient(server.uri)
    run = client.create_run("0")

    class Delivery:
        def __init__(self):
            self.told = []
            self.run_id = run.info.run_id
            self._what = request.param(run, self.told.append)

        def end(self):
            return self._what.end()

        @property
        def refused(self):
            return self._what.refused

        @property
        def there(self):
            data = client.get_run(self.run_id).data
            history = client.get_metric_history(self.run_id, "m")
            assert [(p.value, p.timestamp) for p in history] == [(p.step, 1000 * BEGAN + p.step) for p in history]
            steps = [point.step for point in history]
            assert len(steps) == len(set(steps))
            assert all(data.params[name] == PARAMS[name] for name in data.params)
            return {*steps, *data.params, *(name for name in data.tags if name in TAGS)}

    return Delivery


FOR_A_WHILE = {
    **{name: ANSWERS[name] for name in ("400", "401", "403", "404", "413", "502", "429", "HTML")},
    "401 of MLflow": refusal(401, "UNAUTHENTICATED"),
    "200 with a list": (200, "application/json", b"[]"),
}


@pytest.mark.sampled(26)
@pytest.mark.parametrize("answer", FOR_A_WHILE.values(), ids=FOR_A_WHILE)
def test_temporary_refusal_is_reported_and_retried_with_back_off(proxy, deliver, answer):
    proxy.refuses = lambda call: answer
    delivery = deliver()
    wait_for(lambda: delivery.told)
    time.sleep(1.0)
    assert proxy.refused < 30  # each attempt is a call and its control, after 0.1 s, 0.2 s, 0.4 s, 0.8 s
    assert [line.split(",")[0] for line in delivery.told] == [TOLD]
    proxy.refuses = lambda call: None
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL, set())
    assert [line.split(",")[0] for line in delivery.told] == [TOLD, BACK]


def test_deleted_and_restored_run(proxy, deliver, server):
    client, gate = mlflow.MlflowClient(server.uri), threading.Event()
    proxy.refuses = lambda call: gate.wait(30) and None
    delivery = deliver()
    client.delete_run(delivery.run_id)
    gate.set()
    wait_for(lambda: delivery.told)
    client.restore_run(delivery.run_id)
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL, set())
    assert [line.split(",")[0] for line in delivery.told] == [TOLD, BACK]


def refuses_one(item, answer):
    return lambda call: answer if item in call.items else None


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("item", "answer"), [(777, "400"), ("p3", "400"), ("short", "418"), (777, "fails")])
def test_bad_item_is_set_aside(proxy, deliver, item, answer):
    proxy.refuses = refuses_one(item, ANSWERS[answer])
    delivery = deliver()
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL - {item}, {item})
    assert delivery.told == []


@pytest.mark.sampled(6)
@pytest.mark.parametrize("n_bytes", [20_000, 6_000])
def test_batch_that_is_too_large_is_split(proxy, deliver, n_bytes):
    proxy.refuses = lambda call: ANSWERS["413"] if call.n_bytes > n_bytes else None
    delivery = deliver()
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL, set())
    assert delivery.told == []


@pytest.mark.thorough
@pytest.mark.sampled(2)
def test_item_that_is_too_large_is_set_aside(proxy, deliver):
    proxy.refuses = lambda call: ANSWERS["413"] if call.is_batch and call.n_bytes > len(LONG) else None
    delivery = deliver()
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL - {"long"}, {"long"})


@pytest.mark.thorough
@pytest.mark.sampled(6)
@pytest.mark.parametrize(("item", "answer"), [(777, "403 of a proxy"), ("p3", "401"), ("short", "404 of a proxy")])
def test_forbidden_item_is_kept_and_reported(proxy, deliver, monkeypatch, item, answer):
    """As by a firewall that blocks a value."""
    proxy.refuses = refuses_one(item, ANSWERS[answer])
    delivery = deliver()
    wait_for(lambda: delivery.told and delivery.there == ALL - {item})
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.5)
    assert not delivery.end()
    assert (delivery.there, delivery.refused) == (ALL - {item}, set())
    assert len(delivery.told) == 1
    assert delivery.told[0].startswith("MLflow does not accept")


@pytest.mark.thorough
@pytest.mark.sampled(9)
@pytest.mark.parametrize("answer", ["400", "403", "502", "HTML"])
def test_two_servers_in_turn_of_which_one_refuses(proxy, deliver, answer):
    n = 0

    def refuses(call):
        nonlocal n
        n += 1
        return ANSWERS[answer] if n % 2 else None

    proxy.refuses = refuses
    delivery = deliver()
    wait_for(lambda: n > 100 or delivery.there == ALL)
    proxy.refuses = lambda call: None
    assert delivery.end()
    assert (delivery.there, delivery.refused) == (ALL, set())


def test_slow_server_is_waited_for(proxy, deliver, monkeypatch):
    proxy.refuses = lambda call: time.sleep(0.5)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.5)
    monkeypatch.setattr(patience, "QUICK_SECONDS", 60.0)  # on a loaded machine
    delivery = deliver()
    assert delivery.end()
    assert (delivery.there, delivery.refused, delivery.told) == (ALL, set(), [])
