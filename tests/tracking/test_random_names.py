"""Names that MLflow draws: different ones in a program that seeds each run alike, whose numbers stay the same."""

from __future__ import annotations

import random

import mlflow
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GridSearchCV

from mlflow_hp import record_search
from mlflow_hp.tracking.random_names import names_drawn_apart


def test_numbers_go_on_as_without_also_after_an_error():
    random.seed(5)
    expected = [random.getrandbits(64) for _ in range(3)]
    random.seed(5)
    drawn = [random.getrandbits(64)]
    with names_drawn_apart():
        one = random.getrandbits(64)
    drawn.append(random.getrandbits(64))
    with pytest.raises(OSError, match="away"), names_drawn_apart():
        random.getrandbits(64)
        raise OSError("away")
    drawn.append(random.getrandbits(64))
    assert drawn == expected
    assert one not in expected


def searched():
    search = GridSearchCV(DummyClassifier(), {"strategy": ["prior"]}, cv=2)
    with record_search(search, report=False) as recording:
        search.fit([[0], [1], [2], [3]], [0, 1, 0, 1])
    return mlflow.get_run(recording.run_id).info.run_name


def test_seeded_searches_have_different_names(store, monkeypatch):
    monkeypatch.setattr("mlflow_hp.tracking.run_presentation.is_random", lambda _: False)  # MLflow's names stay
    names = []
    for _ in range(2):
        random.seed(5)
        names.append(searched())
    assert len(set(names)) == 2


def test_a_search_whose_run_cannot_be_started_leaves_the_programs_numbers(store, monkeypatch):
    def refuse(*_, **__):
        raise mlflow.MlflowException("refused")

    monkeypatch.setattr(mlflow, "start_run", refuse)
    random.seed(5)
    state = random.getstate()
    with pytest.raises(mlflow.MlflowException, match="refused"):
        searched()
    assert random.getstate() == state
