"""Histories read for the screen: the same from a database, from a server and one by one."""

from __future__ import annotations

import json
import math
import types
import uuid

import mlflow
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.compare import metric_history, open_source
from tests.helpers.needs import database_of_its_own
from tests.helpers.servers import mariadb, postgresql
from tests.helpers.stored_runs import add_run, new_experiment

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
    assert len(long.steps) <= 2 * 50 + 4
    assert (np.diff(long.steps) > 0).all()
    by_step = dict(zip(long.steps.tolist(), long.values.tolist(), strict=True))
    assert (by_step[17], by_step[1500], by_step[101]) == (9.0, -9.0, math.inf)  # each at its own step
    assert math.isnan(by_step[100])


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


def test_few_points_stay_as_they_are(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    run_id = add_run(store, experiment, metrics={"m": [1.0, float("nan")]})
    points = open_source(mlflow.MlflowClient()).points([run_id], "m")[run_id]
    assert points.values[0] == 1.0
    assert np.isnan(points.values[1])


@pytest.mark.parametrize("reader", ["database", "one by one"])
def test_means_are_of_all_points_also_of_those_beyond_the_zoom(store, run_ids, reader):
    source = open_source(readers(store)[reader])
    values = source.points(run_ids, "m", N)[run_ids[0]].values
    found = source.points(run_ids, "m", N, 1490, 1510, window=20)[run_ids[0]]  # which is even: 21
    assert (found.n, found.steps.tolist()) == (21, list(range(1490, 1511)))
    expected = [values[at - 10 : at + 11].mean() for at in range(1490, 1511)]
    np.testing.assert_allclose(found.values, expected)
    short = source.points(run_ids, "m", N, window=20)[run_ids[1]]
    assert short.values.tolist() == [1.0, 3.0, 2.0]  # of three points, a mean would be a flat line
    with_gap = source.points(run_ids, "m", N, window=3)[run_ids[0]].values
    assert np.isnan(with_gap[[100, 101]]).all()
    assert with_gap[99] == pytest.approx(values[98:100].mean())


def test_a_logarithmic_axis_keeps_the_first_steps(store, run_ids):
    source = open_source(store)
    kept = {axis: source.points(run_ids[:1], "m", 50, axis=axis)[run_ids[0]].steps for axis in ("step", "log")}
    assert [int((steps < 20).sum()) for steps in kept.values()] == [2, 19]
    assert [(steps >= 1000).sum() > 8 for steps in kept.values()] == [True, True]
    by_step = dict(zip(*source.points(run_ids[:1], "m", 50, axis="log")[run_ids[0]][:2], strict=True))
    assert (by_step[17], by_step[1500]) == (9.0, -9.0)


def test_pixels_of_time_are_as_long_as_they_took(store, tmp_path):
    """Half of the points were logged in the first hundredth of the time."""
    experiment = new_experiment(store, tmp_path)
    times = np.concatenate([np.arange(500), 500 + 100 * np.arange(500)]) + 1_700_000_000_000
    run_id = stored(store, experiment, [(i, int(at), math.sin(i)) for i, at in enumerate(times)])
    points = open_source(store).points([run_id], "m", 50, axis="time")[run_id]
    np.testing.assert_array_equal(points.times, times[points.steps])
    assert (points.steps < 500).sum() < 6
    assert (points.steps >= 500).sum() > 80


def stored(store, experiment, points):
    """A run with the metric ``m``, of (step, timestamp, value), put where MLflow's database has them."""
    run_id = add_run(store, experiment)
    for first in range(0, len(points), 1000):
        metrics = [Metric("m", value, timestamp, step) for step, timestamp, value in points[first : first + 1000]]
        store.log_batch(run_id, metrics)
    return run_id


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, 1e-300, math.nan, math.inf, -math.inf, 1e308, -1e308])
HISTORIES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 3), NUMBERS), min_size=1, max_size=80, unique=True)


def check_same_as_in_memory(store, experiment):
    """What is read and downsampled from a store is what `downsample` chooses of the arrays themselves."""

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(HISTORIES, min_size=1, max_size=3), st.integers(1, 20), st.sampled_from([1, 30, 100_000]))
    def check(histories, pixels, at_once):
        run_ids = [stored(store, experiment, points) for points in histories]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metric_history, "POINTS_IN_A_QUERY", at_once)
            read = open_source(store).points(run_ids, "m", pixels)
        ends = [step for points in histories for step, _, _ in points]
        for run_id, points in zip(run_ids, histories, strict=True):
            ordered = sorted(
                {(step, at, math.isnan(value), value if value == value else 0.0) for step, at, value in points}
            )
            steps = np.array([step for step, *_ in ordered])
            values = np.array([math.nan if is_nan else value for *_, is_nan, value in ordered])
            kept = downsample(steps, values, buckets=pixels, low=min(ends), high=max(ends))
            np.testing.assert_array_equal(read[run_id].steps, steps[kept])
            np.testing.assert_array_equal(read[run_id].values, values[kept])
            assert read[run_id].n == len(ordered)

    check()


def test_a_database_gives_the_points_that_memory_gives(store, tmp_path):
    check_same_as_in_memory(store, new_experiment(store, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [postgresql, mariadb])
def test_other_databases_give_the_points_that_memory_gives(kind, tmp_path):
    with database_of_its_own(f"mlflow_hp_points_{uuid.uuid4().hex[:12]}", kind) as uri:
        client = mlflow.MlflowClient(uri)
        check_same_as_in_memory(client, new_experiment(client, tmp_path))
        client._tracking_client.store.engine.dispose()
