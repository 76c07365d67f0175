"""A search on a Dask cluster leaves the record that it leaves on one machine."""

from __future__ import annotations

import random
import threading
from types import SimpleNamespace

import joblib
import pytest
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp._compat.dask import separate_generator
from mlflow_hp.search.live.events import Pool
from mlflow_hp.search.live.speedup_choice import _uses_threads
from tests.helpers import keras_searches
from tests.helpers.needs import needed
from tests.helpers.searches import Picky, X, Y, children, found, grid, nothing_runs, points, record
from tests.helpers.waiting import wait_for

distributed = needed("distributed", "distributed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("store"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.mark.thorough
def test_the_same_record(store, cluster):
    search = grid()
    with joblib.parallel_config("dask"):
        run_id = record(search)
    assert found(search) == found(grid().fit(X, Y))
    for index, run in enumerate(children(store, run_id)):
        assert run.info.status == "FINISHED"
        assert points(store, run, "score") == {i: search.cv_results_[f"split{i}_test_score"][index] for i in range(3)}
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags


class Waits(Picky):
    """Waits in the worker until it is allowed to go on."""

    def fit(self, x, y):
        distributed.Event("go on").wait()
        return super().fit(x, y)


@pytest.mark.thorough
def test_runs_open_while_the_search_runs(store, cluster, monkeypatch):
    monkeypatch.setattr("mlflow_hp.delivery.search_sender.EVERY_SECONDS", 0.1)
    seen = []

    def poll(run_id):
        wait_for(lambda: children(store, run_id))
        seen.extend(run.info.status for run in children(store, run_id))
        distributed.Event("go on", client=cluster).set()

    search = GridSearchCV(Waits(), {"strength": [0, 1]}, cv=2)
    with joblib.parallel_config("dask"), mlflow_hp.record_search(search, progress=False, report=False) as recording:
        thread = threading.Thread(target=poll, args=(recording.run_id,))
        thread.start()
        search.fit(X, Y)
        thread.join()
    assert seen
    assert set(seen) == {"RUNNING"}
    assert nothing_runs(store, recording.run_id)


@pytest.mark.thorough
def test_a_search_goes_on(store, cluster):
    search = GridSearchCV(Picky(), {"strength": [0, 1, -1]}, cv=2, error_score=-1)
    with joblib.parallel_config("dask"):
        run_id = record(search)
        again = GridSearchCV(Picky(), {"strength": [0, 1, -1]}, cv=2, error_score=-1)
        assert record(again, resume=run_id) == run_id
    parent = store.get_run(run_id).data.tags
    assert (parent["mlflow_hp.folds_taken_over"], parent["mlflow_hp.done"], parent["mlflow_hp.failed"]) == (
        "4",
        "2",
        "1",
    )
    assert found(again) == found(search)


@pytest.mark.thorough
def test_seeded_keras_models_and_their_shared_epochs(store, cluster):
    ours, bare = keras_searches.search(), keras_searches.search()
    with joblib.parallel_config("dask"):
        run_id = record(ours, keras_searches.X, keras_searches.Y)
    assert found(ours) == found(bare.fit(keras_searches.X, keras_searches.Y))
    keras_searches.check(store, run_id, ours)


def draws():
    """Whether Python's generator is drawn from when Dask measures a collection."""
    from dask.sizeof import sizeof

    state = random.getstate()
    sizeof(list(range(100)))
    return random.getstate() != state


def test_dask_draws_from_a_generator_of_its_own():
    assert draws()
    with separate_generator():
        with separate_generator():
            assert not draws()
        assert not draws()
    assert draws()


class Measured(Picky):
    """Refuses to fit where Dask draws from the generator that the fit may draw from."""

    def fit(self, x, y):
        assert not draws()
        return super().fit(x, y)


def test_dask_draws_apart_while_the_workers_fit_and_the_best_is_refitted(store, cluster):
    search = GridSearchCV(Measured(), {"strength": [0, 1]}, cv=2, error_score="raise")
    with joblib.parallel_config("dask"):
        record(search)
    assert draws()
    assert all(cluster.run(draws).values())


@pytest.mark.parametrize(
    ("threads", "several"),
    [
        ({"tcp://1": 1, "tcp://2": 1}, False),
        ({"tcp://1": 1, "tcp://2": 2}, True),
        ({"inproc://1": 1}, False),
        ({"inproc://1": 1, "inproc://2": 1}, True),
        ({}, False),
    ],
)
def test_whether_fits_share_a_process(threads, several):
    assert _uses_threads(Pool("dask", SimpleNamespace(nthreads=lambda: threads))) is several
