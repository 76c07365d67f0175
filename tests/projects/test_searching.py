"""What the searches ask: data, folds, scorer, and an estimator that is the experiments' network."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

from mlflow_hp import UserError
from projects import grid_search, models, search_settings
from projects.datasets import samples

SETTINGS = {parameter.name: parameter.read(parameter.default) for parameter in grid_search.PARAMETERS}
SMALL = {**SETTINGS, "max_samples": 120, "epochs": 2, "hidden": "8"}


@pytest.fixture
def table(tmp_path):
    def write(load):
        file = tmp_path / "table.csv"
        load(as_frame=True).frame.to_csv(file, index=False)
        return {**SMALL, "data": str(file), "max_samples": None}

    return write


def test_nothing_is_set_aside_to_validate():
    data, parts = search_settings.load(SMALL), samples.load({**SMALL, "validation_size": 0.25})
    assert (len(data.x_validation), len(data.y_validation)) == (0, 0)
    assert len(data.x_train) == len(data.y_train) == len(parts.x_train) + len(parts.x_validation)
    assert data.x_test.tobytes() == parts.x_test.tobytes()


def test_more_folds_than_samples_of_a_class(table):
    with pytest.raises(UserError, match=r"cv=90 folds need 90 samples of each class, and class '\d' has \d+ to train"):
        search_settings.load({**SMALL, "cv": 90})
    with pytest.raises(UserError, match="cv=400 folds need 400 samples, and there are 353 to train on: lower cv"):
        search_settings.load({**table(load_diabetes), "cv": 400})


@pytest.mark.parametrize(
    ("scoring", "said"),
    [
        ("acuracy", "'acuracy', which does not exist; did you mean 'accuracy'"),
        ("zzzz", "there are accuracy, adjusted_mutual_info_score, "),
        ("roc_auc", "scoring=roc_auc cannot score these data, which have 10 classes: "),
    ],
)
def test_what_can_not_score(scoring, said):
    with pytest.raises(UserError) as raised:
        search_settings.common(search_settings.load(SMALL), {**SMALL, "scoring": scoring})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("load", "inputs", "outputs"), [(load_iris, 4, 3), (load_breast_cancer, 30, 2), (load_diabetes, 10, 1)]
)
def test_the_estimator_is_a_network_for_the_data(table, load, inputs, outputs):
    settings = table(load)
    data = search_settings.load(settings)
    fitted = (
        clone(search_settings.estimator(data, settings))
        .set_params(hidden="5-3", dropout=0.5)
        .fit(data.x_train, data.y_train)
    )
    expected = models.perceptron(data, (5, 3), dropout=0.5)
    assert [v.shape for v in fitted.model_.variables] == [v.shape for v in expected.variables]
    assert fitted.model_.input_shape == (None, inputs)
    assert fitted.predict(data.x_test).shape == data.y_test.shape
    assert np.isfinite(fitted.score(data.x_test, data.y_test))
    if outputs > 1:
        assert fitted.predict_proba(data.x_test).shape == (len(data.y_test), outputs)
        assert set(fitted.predict(data.x_test)) <= set(range(outputs))


def test_settings_reach_the_optimizer():
    data = search_settings.load(SMALL)
    model = search_settings.estimator(data, {**SMALL, "optimizer": "SGD", "learning_rate": 0.25, "momentum": 0.5})
    optimizer = model.fit(data.x_train, data.y_train).model_.optimizer
    assert (type(optimizer).__name__, float(optimizer.learning_rate), optimizer.momentum) == ("SGD", 0.25, 0.5)


@pytest.mark.parametrize(("text", "value"), [("false", False), ("none", False), ("true", True), ("ab12", "ab12")])
def test_what_is_gone_on_with(text, value):
    assert next(p for p in search_settings.SEARCH if p.name == "resume").read(text) == value


def test_jobs_are_not_none():
    read = next(p for p in search_settings.SEARCH if p.name == "n_jobs").read
    assert (read("-1"), read("4")) == (-1, 4)
    with pytest.raises(ValueError, match="-1 for one on each core"):
        read("0")
