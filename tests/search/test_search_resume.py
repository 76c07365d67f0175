"""Searches that go on where an earlier one ended: nothing is computed twice, and they find what they would have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import mlflow
import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_score,
)

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import process_identity
from mlflow_hp.tracking.tags import FOLD_TAG_PREFIX, PROCESS_TAG
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.searches import LOKY, Picky, X, Y, children, found, nothing_runs, points, record
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]


@pytest.fixture(autouse=True)
def experiment(request, store):
    """An experiment of each test's own: what is the latest there is its own."""
    mlflow.set_experiment(f"resume {request.node.name} {time.time()}".replace("/", "_"))


class Stops(LogisticRegression):
    """Counts its fits in a file, and is interrupted, killed or fails at one of them."""

    def __init__(self, C=1.0, folder=None, at=-1, how="interrupt"):  # noqa: N803
        super().__init__(C=C, max_iter=500, tol=0.1)
        self.folder = folder
        self.at = at
        self.how = how

    def fit(self, x, y, sample_weight=None):
        number = len(list(Path(self.folder).iterdir()))
        Path(self.folder, str(number)).touch()
        if Path(self.folder).with_suffix(f".stop{number}").exists():
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "fail":
                raise RuntimeError("failed this once")
            signal.raise_signal(signal.SIGINT)
        return super().fit(x, y, sample_weight)


class Fits:
    """The folder in which fits are counted."""

    def __init__(self, folder):
        self.folder = folder / "fits"
        self.folder.mkdir()

    def stop_at(self, number):
        for told in self.folder.parent.glob("*.stop*"):
            told.unlink()
        self.folder.with_suffix(f".stop{number}").touch()

    @property
    def n(self):
        return len(list(self.folder.iterdir()))


@pytest.fixture
def fits(tmp_path):
    return Fits(tmp_path)


HALVING = {"factor": 2, "min_resources": 30, "random_state": 0, "cv": 3}
SEARCHES = {
    "grid": lambda e: GridSearchCV(e, {"C": [0.01, 0.1, 1.0, 10.0]}, cv=3, return_train_score=True),
    "several scorers": lambda e: GridSearchCV(
        e, {"C": [0.1, 1.0]}, cv=4, scoring=["accuracy", "neg_log_loss"], refit="accuracy"
    ),
    "random": lambda e: RandomizedSearchCV(e, {"C": loguniform(1e-3, 1e2)}, n_iter=4, cv=3, random_state=3),
    "halving": lambda e: HalvingGridSearchCV(e, {"C": [0.01, 0.1, 1.0, 10.0]}, **HALVING),
    "halving random": lambda e: HalvingRandomSearchCV(e, {"C": loguniform(1e-3, 1e2)}, n_candidates=4, **HALVING),
    "seeded shuffling": lambda e: GridSearchCV(e, {"C": [0.1, 1.0]}, cv=KFold(4, shuffle=True, random_state=0)),
}


def interrupted(search, x=X, y=Y, raises=KeyboardInterrupt, **settings):
    with pytest.raises(raises), mlflow_hp.record_search(search, progress=False, report=False, **settings) as recording:
        search.fit(x, y)
    return recording.run_id


@pytest.mark.parametrize("name", SEARCHES)
def test_an_interrupted_search_goes_on(store, fits, name):
    search = SEARCHES[name](Stops(folder=fits.folder))
    bare = clone(search).set_params(estimator__folder=fits.folder).fit(X, Y)
    n = fits.n
    fits.stop_at(n + 6)
    run_id = interrupted(search)
    assert store.get_run(run_id).info.status == "KILLED"
    before = {run.info.run_id: run for run in children(store, run_id)}
    again = clone(search)
    assert record(again, resume=True) == run_id
    assert fits.n == n + 7 + (n - 6)
    assert found(again) == found(bare)
    runs, results = children(store, run_id), again.cv_results_
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len(results["params"])
    assert set(before) <= {run.info.run_id for run in runs}
    metric = "score" if "mean_test_score" in results else "test_accuracy"
    column = "score" if metric == "score" else "accuracy"
    for index, run in enumerate(runs):
        scores = {i: results[f"split{i}_test_{column}"][index] for i in range(again.n_splits_)}
        assert points(store, run, metric) == scores
        assert len(store.get_metric_history(run.info.run_id, metric)) == len(scores)
        assert run.data.metrics[f"mean_{metric}"] == pytest.approx(results[f"mean_test_{column}"][index], rel=1e-14)
        if run.info.run_id in before and before[run.info.run_id].info.status == "FINISHED":
            assert run.info.end_time == before[run.info.run_id].info.end_time
    parent = store.get_run(run_id)
    assert parent.info.status == "FINISHED"
    tags = {k.removeprefix("mlflow_hp."): v for k, v in parent.data.tags.items()}
    assert tags["folds_taken_over"] == "6"
    assert [tags[k] for k in ("running", "done", "failed")] == ["0", str(len(runs)), "0"]
    assert tags["best_run_id"] == runs[again.best_index_].info.run_id
    assert tags.keys().isdisjoint({"error", "were_running", "recording_error"})


def test_times_of_folds_taken_over_are_those_of_then(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    fits.stop_at(6)
    runs = children(store, interrupted(search))
    then = [np.mean(list(points(store, run, "fit_seconds").values())) for run in runs[:2]]
    again = clone(search)
    record(again, resume=True)
    assert again.cv_results_["mean_fit_time"][:2] == pytest.approx(then, rel=1e-12)


def test_a_finished_search_computes_nothing_again_but_the_refit(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    run_id = record(search)
    assert fits.n == 13
    mlflow.set_experiment("tests")
    with pytest.raises(UserError, match="active experiment ID"):
        record(clone(search), resume=run_id)
    mlflow.set_experiment(experiment_id=store.get_run(run_id).info.experiment_id)
    again = clone(search)
    assert record(again, resume=run_id) == run_id
    assert fits.n == 14
    assert found(again) == found(search)
    assert record(clone(search), resume=True) != run_id  # nothing is unfinished: a new one begins
    assert fits.n == 27


def test_failed_folds_are_computed_again(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder, how="fail"))
    fits.stop_at(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's own
        run_id = record(search)
    statuses = [run.info.status for run in children(store, run_id)]
    assert statuses == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    n = fits.n
    again = clone(search)
    record(again, resume=run_id)
    assert fits.n == n + 2  # one fold, and the refit
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}
    assert found(again) == found(clone(search).fit(X, Y))


def test_interrupted_twice_and_inside_an_active_run(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    fits.stop_at(2)
    run_id = interrupted(search)
    fits.stop_at(5)
    assert interrupted(clone(search), resume=True) == run_id
    runs = children(store, run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    with mlflow.start_run() as mine:
        again = clone(search)
        assert record(again, resume=True) == run_id
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert fits.n == 2 + 13
    assert len(children(store, run_id)) == 4
    assert not children(store, mine.info.run_id)


def test_inside_cross_val_score(store, fits):
    search = GridSearchCV(Stops(folder=fits.folder), {"C": [0.1, 1.0]}, cv=2)
    fits.stop_at(7)
    with pytest.raises(KeyboardInterrupt), mlflow_hp.record_search(search, progress=False, report=False) as recording:
        cross_val_score(search, X, Y, cv=2)
    again = clone(search)
    with mlflow_hp.record_search(again, progress=False, report=False, resume=True) as resumed:
        scores = cross_val_score(again, X, Y, cv=2)
    assert resumed.run_id == recording.run_id
    assert fits.n == 8 + 2 + 2  # of each fit the refit, and of the second the two folds that were missing
    assert len(children(store, resumed.run_id)) == 4
    assert scores.tolist() == cross_val_score(clone(search), X, Y, cv=2).tolist()


def test_folds_with_runs_of_their_own(store, fits):
    search = GridSearchCV(Stops(folder=fits.folder), {"C": [0.1]}, cv=3)
    fits.stop_at(1)
    run_id = interrupted(search, per_fold_runs=True)
    record(clone(search), resume=True, per_fold_runs=True)
    (run,) = children(store, run_id)
    folds = sorted((f.data.tags["mlflow_hp.fold"], f.info.status) for f in children(store, run.info.run_id))
    assert folds == [("0", "FINISHED"), ("1", "FINISHED"), ("1", "KILLED"), ("2", "FINISHED")]


def changed(**settings):
    return lambda search: search.set_params(**settings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(param_grid={"strength": [0, 5]}), "the search space"),
        (changed(cv=2), "differences: cv"),
        (changed(scoring="f1_macro"), "scoring or"),
        (changed(return_train_score=True), "return_train_score"),
        (changed(cv=KFold(3, shuffle=True)), "cv=KFold shuffles without a seed"),
        (changed(cv=ShuffleSplit(3)), "cv=ShuffleSplit shuffles without a seed"),
    ],
)
def test_what_is_not_the_same_is_refused(fits, change, reason):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    with pytest.raises(UserError, match=reason), mlflow_hp.record_search(change(clone(search)), resume=run_id):
        pass
    assert mlflow.active_run() is None


def test_other_data_are_refused(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    for x, y in ((X + 1e-12, Y), (X, Y[::-1])):
        with pytest.raises(UserError, match="differences: the data"):
            record(clone(search), x, y, resume=run_id)
    weighted = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=3)
    run_id = record(weighted)
    with (
        pytest.raises(UserError, match="another argument of fit"),
        mlflow_hp.record_search(again := clone(weighted), resume=run_id, report=False),
    ):
        again.fit(X, Y, sample_weight=np.ones(len(X)))


def test_other_rows_are_refused():
    splits = list(KFold(3, shuffle=True, random_state=0).split(X))
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(splits))
    run_id = record(search)
    again = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(splits))
    record(again, resume=run_id)
    other = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=iter(list(KFold(3).split(X))))
    with pytest.raises(UserError, match="its first fold had other rows"):
        record(other, resume=run_id)


def test_unseeded_draws_are_refused():
    for search, reason in (
        (RandomizedSearchCV(Picky(), {"strength": [0, 1]}, n_iter=2), "draws different candidates"),
        (HalvingGridSearchCV(Picky(), {"strength": [0, 1]}), "draws different rows"),
    ):
        with pytest.raises(UserError, match=reason), mlflow_hp.record_search(search, resume=True):
            pass


def scaled(value):
    return 2 * value


class Coded(Picky):
    def fit(self, x, y):
        self.scaled_ = scaled(self.strength)
        return super().fit(x, y)


def test_other_code_and_versions_are_refused(monkeypatch):
    search = GridSearchCV(Coded(), {"strength": [0, 1]}, cv=3)
    run_id = record(search)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "scaled", lambda value: 3 * value)
        with pytest.raises(UserError, match="differences: the code"), mlflow_hp.record_search(search, resume=run_id):
            pass
    with monkeypatch.context() as patch:
        patch.setattr(np, "__version__", "0.1")
        with pytest.raises(UserError, match=r'versions.*"numpy": "\d.*now .*"numpy": "0.1"'):
            record(clone(search), resume=run_id)
    record(clone(search), resume=run_id)


def test_what_is_no_run_of_a_search(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    with mlflow.start_run() as run:
        pass
    for resume, reason in (
        (run.info.run_id, "holds no search"), ("0" * 32, "not in the tracking store"), (3, "neither True nor the id"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=reason), mlflow_hp.record_search(search, resume=resume):
            pass
    unseeded = clone(search).set_params(cv=KFold(3, shuffle=True))
    run_id = record(unseeded)
    assert "shuffles without a seed" in store.get_run(run_id).data.tags["mlflow_hp.not_resumable"]
    with pytest.raises(UserError, match="cannot be resumed: cv=KFold shuffles"):
        record(search, resume=run_id)


class Unlike:
    def __reduce__(self):
        raise TypeError("not to be pickled")

    __slots__ = ()


def test_what_can_not_be_known_again_is_recorded_nevertheless(store):
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3, scoring=Scorer())
    run_id = record(search)
    tags = store.get_run(run_id).data.tags
    assert "cannot be fingerprinted" in tags["mlflow_hp.not_resumable"]
    assert "mlflow_hp.recording_error" not in tags
    assert len(children(store, run_id)) == 2
    with pytest.raises(UserError, match="not to be pickled"), mlflow_hp.record_search(search, resume=True):
        pass


class Scorer:
    def __init__(self):
        self.unlike = Unlike()

    def __call__(self, estimator, x, y):
        return 1.0


def test_a_run_that_is_being_recorded_is_not_resumed():
    search = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=3)
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
        with pytest.raises(UserError, match="still runs"), mlflow_hp.record_search(search, resume=recording.run_id):
            pass


PROGRAM = """
import os, sys
sys.path[:0] = {paths!r}
import mlflow, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
import mlflow_hp
from mlflow_hp.tracking import process_identity as process
from mlflow_hp.delivery import search_sender as writer
writer.EVERY_SECONDS = 0.1

n_fits = 0

class Stops(LogisticRegression):
    def fit(self, x, y, sample_weight=None):
        global n_fits
        n_fits += 1
        print("fit", flush=True)
        if n_fits == 6 and os.path.exists("stop"):
            sys.stdin.read()
        return super().fit(x, y, sample_weight)

rng = np.random.default_rng(0)
x = rng.normal(size=(90, 3)); y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
search = GridSearchCV(Stops(), {{"C": [0.001, 0.1, 10.0]}}, cv=3)
if sys.argv[1] == "bare":
    search.fit(x, y)
else:
    with mlflow_hp.record_search(search, resume=sys.argv[1] == "resume", progress=False, report=False) as recording:
        search.fit(x, y)
print({{k: np.asarray(v).tolist() for k, v in search.cv_results_.items() if not k.endswith("_time")}})
"""


def program(tmp_path, store):
    """What starts a program with a search of nine fits; with a file `stop`, the sixth stops until the input ends."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(paths=[str(Path(mlflow_hp.__file__).parents[1])]))
    experiment = store.search_experiments(max_results=1, order_by=["creation_time DESC"])[0]
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_EXPERIMENT_ID": experiment.experiment_id,
    }  # fmt: skip

    def start(how):
        return subprocess.Popen(
            [python(), str(script), how],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip

    return start, experiment.experiment_id


def lines(running):
    out, _ = running.communicate()
    assert running.returncode == 0
    return out.splitlines()


def test_a_killed_process(store, tmp_path):
    start, experiment_id = program(tmp_path, store)
    (tmp_path / "stop").touch()
    running = start("record")

    def n_kept():
        runs = store.search_runs([experiment_id])
        return sum(name.startswith(FOLD_TAG_PREFIX) for run in runs for name in run.data.tags)

    wait_for(lambda: n_kept() == 5)
    running.kill()
    wait_for_end(running)
    running.communicate()
    parent, *_ = store.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    assert parent.info.status == "RUNNING"
    (tmp_path / "stop").unlink()
    resumed = lines(start("resume"))
    assert resumed.count("fit") == 9 - 5 + 1
    assert resumed[-1] == lines(start("bare"))[-1]
    assert store.get_run(parent.info.run_id).info.status == "FINISHED"
    assert len(children(store, parent.info.run_id)) == 3
    assert {run.info.status for run in children(store, parent.info.run_id)} == {"FINISHED"}
    assert len(store.search_runs([experiment_id])) == 4


def test_a_killed_worker(store, fits):
    search = GridSearchCV(
        Stops(folder=fits.folder, how="kill"), {"C": [0.01, 0.1, 1.0, 10.0]}, cv=3, n_jobs=2, pre_dispatch=2
    )
    fits.stop_at(7)
    run_id = interrupted(search, raises=BrokenProcessPool)
    assert nothing_runs(store, run_id)
    kept = sum(name.startswith(FOLD_TAG_PREFIX) for run in children(store, run_id) for name in run.data.tags)
    assert kept > 0
    fits.stop_at(-1)
    n, again = fits.n, clone(search)
    record(again, resume=True)
    assert fits.n == n + 12 - kept + 1
    assert found(again) == found(clone(search).fit(X, Y))
    assert len(children(store, run_id)) == 4
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}


def dead_process():
    """The tag of a process of this host that has ended."""
    begins = f"import sys; sys.path[:0] = {sys.path!r}\n"
    program = f"{begins}from mlflow_hp.tracking.process_identity import *; print(this_process())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_new_search_closes_what_dead_processes_left(store):
    dead, elsewhere = dead_process(), json.dumps({"host": "another", "pid": 1, "started": "then"})
    left = {}
    experiment_id = mlflow.tracking.fluent._get_experiment_id()
    for name, tag in (("dead", dead), ("alive", process_identity.this_process()), ("elsewhere", elsewhere)):
        parent = store.create_run(experiment_id, tags={PROCESS_TAG: tag}).info.run_id
        below = store.create_run(experiment_id, tags={"mlflow.parentRunId": parent}).info.run_id
        fold = store.create_run(experiment_id, tags={"mlflow.parentRunId": below}).info.run_id
        left[name] = (parent, below, fold)
    record(GridSearchCV(Picky(), {"strength": [0]}, cv=2))
    states = {name: {store.get_run(run).info.status for run in runs} for name, runs in left.items()}
    assert states == {"dead": {"KILLED"}, "alive": {"RUNNING"}, "elsewhere": {"RUNNING"}}


def test_data_with_a_mask(store):
    masked = np.ma.array(X, mask=X > 2)
    run_id = record(GridSearchCV(Picky(), {"strength": [0, 1]}, cv=2), masked)
    again = GridSearchCV(Picky(), {"strength": [0, 1]}, cv=2)
    assert record(again, masked, resume=run_id) == run_id
    with pytest.raises(UserError, match=r"cannot be resumed.*data"):
        record(again, np.ma.array(X, mask=X > 1.9), resume=run_id)
