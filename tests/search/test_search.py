"""record_search: what the runs hold while and after a search."""

from __future__ import annotations

import csv
import itertools
import json
import threading
import time
import warnings

import joblib
import mlflow
import numpy as np
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mlflow_hp
from tests.helpers.searches import LINEAR, LOKY, Picky, X, Y, children, found, grid, nothing_runs, points, record, text
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_every_combination_is_a_run(store, n_jobs):
    search = grid(return_train_score=True, n_jobs=n_jobs)
    before = time.time() * 1000 - 1
    run_id = record(search)
    runs, results = children(store, run_id), search.cv_results_
    assert [run.info.run_name for run in runs] == [
        f"C={c} fit_intercept={i}" for c in ("0.01", "1") for i in (True, False)
    ]
    for index, run in enumerate(runs):
        assert run.info.status == "FINISHED"
        assert run.data.params == {k: str(v) for k, v in results["params"][index].items()}
        assert run.data.tags["mlflow_hp.kind"] == "candidate"
        for kind, name in (("test", "score"), ("train", "train_score")):
            assert points(store, run, name) == {i: results[f"split{i}_{kind}_score"][index] for i in range(3)}
        metrics = run.data.metrics
        assert metrics["mean_score"] == pytest.approx(results["mean_test_score"][index], rel=1e-14)
        assert metrics["std_score"] == pytest.approx(results["std_test_score"][index], rel=1e-12)
        assert metrics["rank"] == results["rank_test_score"][index]
        for kind in ("fit", "score"):
            seconds = list(points(store, run, f"{kind}_seconds").values())
            assert len(seconds) == 3
            assert np.mean(seconds) == pytest.approx(results[f"mean_{kind}_time"][index])
        assert before <= run.info.start_time <= run.info.end_time <= time.time() * 1000
        spent = sum(sum(points(store, run, f"{kind}_seconds").values()) for kind in ("fit", "score"))
        if n_jobs == 1:  # its folds are computed one after the other
            assert run.info.end_time - run.info.start_time >= spent * 1000 - 2
    if n_jobs == 1:
        for one, next_one in itertools.pairwise(runs):
            assert one.info.end_time <= next_one.info.start_time + 2


def test_the_parent_holds_the_search_and_what_it_found(store):
    search = grid(scoring="accuracy")
    run_id = record(search)
    parent, runs = store.get_run(run_id), children(store, run_id)
    assert parent.info.status == "FINISHED"
    assert mlflow.active_run() is None
    assert parent.data.params == {
        "search": "GridSearchCV", "estimator": "LogisticRegression(max_iter=500, tol=0.1)", "scoring": "accuracy",
        "cv": "3", "refit": "True", "n_jobs": "None", "space/C": "[0.01, 1.0]", "space/fit_intercept": "[True, False]",
    }  # fmt: skip
    tags = {k.removeprefix("mlflow_hp."): v for k, v in parent.data.tags.items() if k.startswith("mlflow_hp.")}
    assert tags["kind"] == "search"
    assert [tags[name] for name in ("planned", "running", "done", "failed")] == ["4", "0", "4", "0"]
    best = runs[search.best_index_]
    assert tags["best_run_id"] == best.info.run_id
    assert tags["best"] == best.info.run_name
    assert json.loads(tags["best_params"]) == {k: str(v) for k, v in search.best_params_.items()}
    assert "scikit-learn" in tags["versions"]
    assert "recording_error" not in tags
    metrics = parent.data.metrics
    assert metrics["best_score"] == search.best_score_
    assert metrics["fit_seconds"] == pytest.approx(3 * search.cv_results_["mean_fit_time"].sum())
    assert metrics["score_seconds"] == pytest.approx(3 * search.cv_results_["mean_score_time"].sum())
    assert metrics["refit_seconds"] == search.refit_time_
    assert metrics["recording_seconds"] > 0
    rows = list(csv.DictReader(text(parent, "cv_results.csv").splitlines()))
    assert [float(row["mean_test_score"]) for row in rows] == search.cv_results_["mean_test_score"].tolist()
    assert [row["param_C"] for row in rows] == ["0.01", "0.01", "1.0", "1.0"]
    assert all(run.data.tags["mlflow.user"] == parent.data.tags["mlflow.user"] for run in runs)


def test_the_search_finds_what_it_would_have_found():
    search, bare = grid(n_jobs=2), grid(n_jobs=2).fit(X, Y)
    record(search)
    assert found(search) == found(bare)


def test_several_scorers(store):
    search = grid(scoring=["accuracy", "f1_macro"], refit="f1_macro", return_train_score=True)
    for index, run in enumerate(children(store, record(search))):
        for name in ("accuracy", "f1_macro"):
            for kind in ("test", "train"):
                expected = {i: search.cv_results_[f"split{i}_{kind}_{name}"][index] for i in range(3)}
                assert points(store, run, f"{kind}_{name}") == expected
            assert run.data.metrics[f"rank_test_{name}"] == search.cv_results_[f"rank_test_{name}"][index]
            assert f"mean_test_{name}" in run.data.metrics


def test_a_random_search(store):
    from scipy.stats import loguniform

    search = RandomizedSearchCV(LINEAR, {"C": loguniform(1e-3, 10)}, n_iter=3, cv=3, random_state=1)
    run_id = record(search)
    params = store.get_run(run_id).data.params
    assert params["space/C"] == "loguniform(0.001, 10)"
    assert params["n_iter"] == "3"
    for run, candidate in zip(children(store, run_id), search.cv_results_["params"], strict=True):
        assert float(run.data.params["C"]) == candidate["C"]


def test_successive_halving(store):
    search = HalvingGridSearchCV(
        LINEAR, {"C": [0.01, 0.1, 1.0, 10.0]}, factor=2, min_resources=30, cv=3, random_state=0
    )
    run_id = record(search)
    runs, results = children(store, run_id), search.cv_results_
    assert len(runs) == len(results["params"]) > 4
    assert store.get_run(run_id).data.tags["mlflow_hp.planned"] == str(len(runs))
    for index, run in enumerate(runs):
        assert run.data.metrics["n_resources"] == results["n_resources"][index]
        assert int(run.data.tags.get("mlflow_hp.round", 0)) == results["iter"][index]
    assert runs[-1].info.run_name.endswith(f" round={results['iter'][-1]}")
    assert store.get_run(run_id).data.tags["mlflow_hp.best_run_id"] == runs[search.best_index_].info.run_id


def test_inside_an_active_run(store):
    with mlflow.start_run() as run:
        mlflow.log_param("cv", "three")
        mlflow.set_tag("mlflow_hp.kind", "mine")
        assert record(grid()) == run.info.run_id
        assert mlflow.active_run().info.run_id == run.info.run_id
        assert store.get_run(run.info.run_id).info.status == "RUNNING"
    parent = store.get_run(run.info.run_id)
    assert (parent.data.params["cv"], parent.data.tags["mlflow_hp.kind"]) == ("three", "mine")
    assert len(children(store, run.info.run_id)) == 4


def test_a_pipeline_has_short_names(store):
    pipeline = make_pipeline(StandardScaler(), SVC())
    space = {"svc__C": [1, 10], "svc__gamma": [0.1], "standardscaler__with_mean": [True, False]}
    runs = children(store, record(GridSearchCV(pipeline, space, cv=3)))
    assert runs[0].info.run_name == "with_mean=True C=1"
    assert runs[0].data.params.keys() == space.keys()


def test_inside_cross_val_score(store):
    search = grid()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        scores = cross_val_score(search, X, Y, cv=2)
    assert scores.tolist() == cross_val_score(search, X, Y, cv=2).tolist()
    runs = children(store, recording.run_id)
    assert [run.data.tags.get("mlflow_hp.fit", "0") for run in runs] == ["0"] * 4 + ["1"] * 4
    assert [p.step for p in store.get_metric_history(recording.run_id, "best_score")] == [0, 1]
    artifacts = {a.path for a in store.list_artifacts(recording.run_id)} - {"resume"}  # which modules are loaded
    assert artifacts == {"cv_results.csv", "fit_1"}


def test_a_search_of_another_kind_inside_is_not_recorded(store):
    inner = GridSearchCV(LINEAR, {"C": [0.1, 1.0]}, cv=2)
    outer = GridSearchCV(inner, {"estimator__fit_intercept": [True, False]}, cv=2)
    assert len(children(store, record(outer))) == 2


def test_several_fits(store):
    search = grid()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
        first = search.cv_results_["mean_test_score"].tolist()
        search.fit(X[::2], Y[::2])
    runs = children(store, recording.run_id)
    means = [run.data.metrics["mean_score"] for run in runs]
    assert means == pytest.approx([*first, *search.cv_results_["mean_test_score"]])


def test_two_searches_in_threads(store):
    ids, barrier = {}, threading.Barrier(2)

    def work(name, values):
        search = GridSearchCV(LINEAR, {"C": values}, cv=3)
        with mlflow_hp.record_search(search, progress=False, report=False) as recording:
            barrier.wait()
            search.fit(X, Y)
        ids[name] = recording.run_id

    threads = [threading.Thread(target=work, args=a) for a in (("one", [1, 2]), ("other", [3, 4, 5]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {name: [run.info.run_name for run in children(store, run_id)] for name, run_id in ids.items()}
    assert names == {"one": ["C=1", "C=2"], "other": ["C=3", "C=4", "C=5"]}


def test_folds_with_runs_of_their_own(store):
    search = GridSearchCV(Picky(), {"strength": [0, -1]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = children(store, record(search, per_fold_runs=True))
    folds = children(store, runs[0].info.run_id)
    assert [run.info.run_name for run in folds] == ["fold 0", "fold 1", "fold 2"]
    assert [run.data.metrics["score"] for run in folds] == list(points(store, runs[0], "score").values())
    assert {run.info.status for run in folds} == {"FINISHED"}
    assert {run.info.status for run in children(store, runs[1].info.run_id)} == {"FAILED"}


def unlike_joblib(*arguments, **named):
    return joblib.Parallel(*arguments, **named)


def test_a_search_that_can_not_be_followed_is_recorded_afterwards(store, monkeypatch):
    from sklearn.model_selection import _search

    with monkeypatch.context() as patch:
        patch.setattr(_search, "Parallel", unlike_joblib)
        search = grid(return_train_score=True)
        warnings.filterwarnings("ignore", message=".*joblib.delayed|.*sklearn.utils.parallel")
        with pytest.warns(RuntimeWarning, match="recorded when it has ended, not live"):
            run_id = record(search)
    runs = children(store, run_id)
    for index, run in enumerate(runs):
        assert run.data.tags["mlflow_hp.recorded"] == "afterwards"
        assert points(store, run, "score") == {i: search.cv_results_[f"split{i}_test_score"][index] for i in range(3)}
        assert run.data.metrics["rank"] == search.cv_results_["rank_test_score"][index]
    assert store.get_run(run_id).data.tags["mlflow_hp.best_run_id"] == runs[search.best_index_].info.run_id


class Waits(Picky):
    """Waits, but for the strength 0, until a file is there."""

    def __init__(self, strength=0, file=None):
        super().__init__(strength)
        self.file = file

    def fit(self, x, y):
        wait_for(lambda: not self.strength or self.file.exists())
        return super().fit(x, y)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_runs_open_and_close_while_the_search_runs(store, n_jobs, monkeypatch, tmp_path):
    monkeypatch.setattr("mlflow_hp.delivery.search_sender.EVERY_SECONDS", 0.1)
    go_on = tmp_path / "go on"
    search = GridSearchCV(Waits(file=go_on), {"strength": [0, 1, 2]}, cv=2, n_jobs=n_jobs)
    seen, over = [], threading.Event()

    def poll(run_id):
        while not over.wait(0.05):
            runs = children(store, run_id)
            tags = store.get_run(run_id).data.tags
            if {run.info.status for run in runs} == {"RUNNING", "FINISHED"} and tags.get("mlflow_hp.done") == "1":
                seen.append(tags["mlflow_hp.planned"])
                break
        go_on.touch()

    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        poller = threading.Thread(target=poll, args=(recording.run_id,))
        poller.start()
        search.fit(X, Y)
        over.set()
        poller.join()
    assert seen == ["3"]
    assert nothing_runs(store, recording.run_id)


def test_without_a_terminal_there_is_no_progress_bar(store, capfd):
    with mlflow_hp.record_search(search := grid(), report=False):
        search.fit(X, Y)
    assert "12/12" not in capfd.readouterr().err


def test_the_progress_bar(capfd, monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.live.candidates.is_live", lambda: True)  # as in a terminal
    with mlflow_hp.record_search(search := grid(), report=False):
        search.fit(X, Y)
    shown = capfd.readouterr().err
    assert "12/12" in shown
    assert "candidates: 4 planned, 4 d" in shown  # a narrow terminal cuts the rest off


def test_many_combinations(store):
    search = GridSearchCV(Picky(), {"strength": list(range(101))}, cv=2, refit=False)
    runs = children(store, record(search, X[::5], Y[::5]))
    assert [run.data.params["strength"] for run in runs] == [str(i) for i in range(101)]
    assert {run.info.status for run in runs} == {"FINISHED"}
