"""What a search brings to MLflow in words: whole, without secrets, each name told from every other."""

from __future__ import annotations

import mlflow
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit

from mlflow_hp.tracking.tags import DATA_DIGEST_TAG, FOLDS_DIGEST_TAG
from tests.helpers.searches import GRID, LINEAR, X, Y, children, grid, points, record, text

pytestmark = pytest.mark.usefixtures("store")

LONG = "x" * 7000
SECRET = "geheim4711"  # noqa: S105


class Constant(ClassifierMixin, BaseEstimator):
    """Predicts the first class."""

    def __init__(self, source="", api_key="", note=""):
        self.source = source
        self.api_key = api_key
        self.note = note

    def fit(self, x, y):
        if self.note == "bad":
            raise ValueError(f"can't reach https://me:{SECRET}@host")
        self.classes_ = sorted(set(y))
        return self

    def predict(self, x):
        return [self.classes_[0]] * len(x)


def everything(store, run):
    """All that a run says."""
    files = [text(run, file.path) for file in all_files(store, run)]
    return [run.info.run_name, *run.data.params.values(), *run.data.tags.values(), *files]


def all_files(store, run, path=None):
    for file in store.list_artifacts(run.info.run_id, path):
        yield from all_files(store, run, file.path) if file.is_dir else [file]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_no_secret_is_recorded_and_nothing_is_cut(store):
    space = {"source": [f"https://me:{SECRET}@host/x.csv"], "api_key": [SECRET], "note": [LONG, "bad"]}
    parent = record(GridSearchCV(Constant(), space, cv=3, error_score=0.0))
    good, bad = children(store, parent)
    top = store.get_run(parent)
    for run in (top, good, bad):
        said = everything(store, run)
        assert not any(SECRET in each for each in said)
    assert good.data.params["source"] == "https://me:***@host/x.csv"
    assert good.data.params["api_key"] == "***"
    assert text(good, "params/note.txt") == LONG
    assert "params/note.txt" in good.data.params["note"]
    assert "can't reach https://me:***@host" in text(bad, "error/traceback.txt")
    assert text(top, "params/space/note.txt") == f"[{LONG}, bad]"


def test_scorers_whose_names_meet_are_told_apart(store):
    first, second = (lambda *_: 0.25), (lambda *_: 0.75)
    run, *_ = children(store, record(grid(scoring={"s(1)": first, "s[1]": second}, refit=False)))
    values = {name: points(store, run, name)[0] for name in run.data.metrics if name.startswith("test_s")}
    assert sorted(values.values()) == [0.25, 0.75]
    assert sorted(v for k, v in run.data.metrics.items() if k.startswith("mean_test_s")) == [0.25, 0.75]


def digests(store, *searches):
    tags = [store.get_run(record(search, x, Y)).data.tags for search, x in searches]
    return [tag[DATA_DIGEST_TAG] for tag in tags], [tag[FOLDS_DIGEST_TAG] for tag in tags]


def test_searches_of_the_same_data_and_folds_are_known(store):
    data, folds = digests(
        store,
        (grid(), X),
        (GridSearchCV(LINEAR, {"C": [3.0]}, cv=3), X),
        (grid(), X + 1),
        (grid(cv=KFold(3)), X),
        (grid(cv=ShuffleSplit(3)), X),  # drawn anew: cannot be resumed, and is compared with none
    )
    assert data[0] == data[1] == data[3] == data[4] != data[2]
    assert folds[0] == folds[1] == folds[2]
    assert len({folds[0], folds[3], folds[4]}) == 3


def test_what_the_run_says_of_its_data_stays(store):
    with mlflow.start_run() as run:
        mlflow.set_tag(DATA_DIGEST_TAG, "mine")
        record(GridSearchCV(LINEAR, GRID, cv=3))
    assert store.get_run(run.info.run_id).data.tags[DATA_DIGEST_TAG] == "mine"


def test_combinations_say_who_made_them_from_which_code(store):
    parent = record(GridSearchCV(LINEAR, GRID, cv=3))
    said = [f"mlflow_hp.{name}" for name in ("author", "host", "versions", "command")]
    tags = store.get_run(parent).data.tags
    for run in children(store, parent):
        assert {name: run.data.tags[name] for name in said} == {name: tags[name] for name in said}
