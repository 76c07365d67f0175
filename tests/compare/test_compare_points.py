"""Histories read for the screen: the same from a database, from a server and one by one."""

from __future__ import annotations

import json
import types
import uuid

import mlflow
import numpy as np
import pytest
import sqlalchemy
from comparisons import add_run, new_experiment

from mlflow_hp.analysis.downsampling import thinned
from mlflow_hp.compare import metric_history, open_source

N = 2000


@pytest.fixture(scope="module")
def run_ids(tracking_uri, tmp_path_factory):
    """Two runs, the first with spikes and values that are not finite, and a short one."""
    store = mlflow.MlflowClient(tracking_uri)
    experiment = new_experiment(store, tmp_path_factory.mktemp("points"))
    values = np.sin(np.arange(N) / 300)
    values[[17, 1500]] = 9.0, -9.0
    values[[100, 101]] = np.nan, np.inf
    return [add_run(store, experiment, metrics={"m": own}) for own in (values.tolist(), [1.0, 3.0, 2.0])]


class OneByOne:
    """What a store of another kind offers."""

    def __init__(self, client):
        self._store = client._tracking_client.store

    def get_metric_history(self, run_id, metric, max_results=None, page_token=None):
        return self._store.get_metric_history(run_id, metric, max_results, page_token)


class Server(OneByOne):
    """What a client of a server offers; answers as the bulk route does."""

    def get_host_creds(self):
        return self

    def answer(self, host, route, method, params):
        assert (host, route, method) == (self, metric_history.BULK_ROUTE, "GET")
        points = self._store.get_metric_history_bulk(params["run_id"], params["metric_key"], params["max_results"])
        text = json.dumps({"metrics": [point.to_dict() for point in points]})
        return types.SimpleNamespace(status_code=200, json=lambda: json.loads(text))


def readers(store):
    return {"database": store, "server": Server(store), "one by one": OneByOne(store)}


@pytest.mark.parametrize("reader", ["database", "server", "one by one"])
@pytest.mark.parametrize("most", [metric_history.POINTS_IN_A_REQUEST, 40])
def test_spikes_stay_wherever_they_are_read(store, run_ids, reader, most, monkeypatch):
    chosen = readers(store)[reader]
    if reader == "server":
        monkeypatch.setattr("mlflow.utils.rest_utils.http_request", chosen.answer)
        monkeypatch.setattr(metric_history, "POINTS_IN_A_REQUEST", most)
    found = open_source(chosen).points(run_ids, "m", 50)
    long, short = (found[run_id] for run_id in run_ids)
    assert short.steps.tolist() == [0, 1, 2]
    assert short.values.tolist() == [1.0, 3.0, 2.0]
    assert long.n == N
    assert len(long.steps) <= 3 * 50 + 3
    assert (np.diff(long.steps) > 0).all()
    finite = long.values[np.isfinite(long.values) & (np.abs(long.values) < 1e300)]
    assert (finite.min(), finite.max()) == (-9.0, 9.0)
    assert abs(long.steps[np.flatnonzero(long.values == -9.0)[0]] - 1500) <= N / 50


def test_a_server_without_the_bulk_route_is_read_one_by_one(store, run_ids, monkeypatch):
    server = Server(store)
    refused = types.SimpleNamespace(status_code=404)
    monkeypatch.setattr("mlflow.utils.rest_utils.http_request", lambda *_, **__: refused)
    assert open_source(server).points(run_ids, "m", N)[run_ids[0]].n == N


@pytest.mark.parametrize("reader", ["database", "one by one"])
def test_a_zoom_shows_every_point(store, run_ids, reader):
    found = open_source(readers(store)[reader]).points(run_ids, "m", 50, 1490, 1510)
    assert list(found) == run_ids[:1]
    assert found[run_ids[0]].steps.tolist() == list(range(1490, 1511))
    assert found[run_ids[0]].values[10] == -9.0


def test_a_metric_that_no_run_has(store, run_ids):
    assert open_source(store).points(run_ids, "other") == {}


def test_thinning_keeps_the_lowest_and_highest_of_each_pixel():
    rng = np.random.default_rng(0)
    steps, values = np.arange(10_000), rng.normal(size=10_000)
    found = thinned(steps, values, 100, 0, 9_999)
    assert found.n == 10_000
    assert (found.steps[0], found.steps[-1]) == (0, 9_999)
    for pixel in range(100):
        own = values[100 * pixel : 100 * (pixel + 1)]
        kept = found.values[(found.steps >= 100 * pixel) & (found.steps < 100 * (pixel + 1))]
        assert (kept.min(), kept.max()) == (own.min(), own.max())
        assert len(kept) <= 4
    np.testing.assert_array_equal(values[found.steps], found.values)


def test_thinning_of_what_is_not_finite():
    values = np.full(1000, np.nan)
    values[500:] = 1.0
    found = thinned(np.arange(1000), values, 10, 0, 999)
    assert np.isnan(found.values[found.steps < 500]).all()
    assert np.isfinite(found.values[found.steps >= 500]).all()


def test_few_points_stay_as_they_are(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    run_id = add_run(store, experiment, metrics={"m": [1.0, float("nan")]})
    points = open_source(mlflow.MlflowClient()).points([run_id], "m")[run_id]
    assert points.values[0] == 1.0
    assert np.isnan(points.values[1])


@pytest.mark.slow
def test_spikes_stay_in_postgresql(tmp_path):
    from sqlalchemy import create_engine, text

    server = "postgresql+psycopg2://postgres@127.0.0.1:5432"
    name = f"mlflow_hp_points_{uuid.uuid4().hex[:12]}"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    try:
        connection = engine.connect()
    except sqlalchemy.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL at 127.0.0.1:5432 for postgres: {error}")
    with connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            client = mlflow.MlflowClient(f"{server}/{name}")
            values = np.ones(N)
            values[[17, 1500, 1501]] = 9.0, -9.0, np.nan
            experiment = new_experiment(client, tmp_path)
            run_ids = [add_run(client, experiment, metrics={"m": own}) for own in (values.tolist(), [1.0, 2.0])]
            found = open_source(client).points(run_ids, "m", 50)
            long, short = (found[run_id] for run_id in run_ids)
            assert short.values.tolist() == [1.0, 2.0]
            assert (long.n, long.values.min(), long.values.max()) == (N, -9.0, 9.0)
            assert len(long.steps) <= 2 * 50
            client._tracking_client.store.engine.dispose()
        finally:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
