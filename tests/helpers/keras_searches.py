"""Small searches of Keras models, whose candidates share epochs."""

from __future__ import annotations

import keras
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.model_selection._validation import _fit_and_score

from mlflow_hp.search.live.worker import FoldTask, SharedFoldTask
from mlflow_hp.search.live.worker_channel import Inbox
from tests.helpers.searches import children, points

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype("float32"), Y[:300]


def dropout_mlp(learning_rate=0.1, init="glorot_uniform", dropout=0.3, momentum=0.9, optimizer="SGD", units=16):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(units, "relu", kernel_initializer=init),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, "softmax", kernel_initializer=init),
        ]
    )
    kind = getattr(keras.optimizers, optimizer)
    named = {"momentum": momentum} if optimizer == "SGD" else {}
    model.compile(kind(learning_rate, **named), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def normed_mlp(learning_rate=0.1):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dropout(0.3),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(learning_rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def small(learning_rate=0.1):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model


def classifier(model=normed_mlp, **named):
    return KerasClassifier(model, **{"batch_size": 32, "verbose": 0, "random_state": 7, **named})


def shared(estimator, candidates, name, reuse=False, **options):
    """The outcomes in the order of the candidates, and the events in that of their coming."""
    events = []
    inbox = Inbox(events.append)
    address = inbox.address()._replace(reuse=reuse)
    fold_tasks = [FoldTask(task, _fit_and_score, address) for task in range(len(candidates))]
    counts = [candidate[name] for candidate in candidates]
    shared_task = SharedFoldTask(
        fold_tasks, counts, [{"estimator": clone(estimator), "parameters": candidate} for candidate in candidates]
    )
    outcomes = shared_task(**options)
    inbox.close()
    return sorted(outcomes), events


def search(kind=GridSearchCV, **settings):
    grid = settings.pop("param_grid", {"epochs": [3, 1], "model__learning_rate": [0.1, 0.01]})
    return kind(classifier(small, batch_size=50), grid, **{"cv": 2, "refit": False, **settings})


def check(store, run_id, ours):
    """The runs hold what belongs to each combination."""
    runs = children(store, run_id)
    assert [run.info.run_name for run in runs] == [
        f"epochs={epochs} learning_rate={rate}" for epochs in (3, 1) for rate in ("0.1", "0.01")
    ]
    for index, run in enumerate(runs):
        assert run.info.status == "FINISHED"
        shared_with = None if index < 2 else runs[index - 2].info.run_name
        assert run.data.tags.get("mlflow_hp.shared_epochs_with") == shared_with
        scores = {fold: ours.cv_results_[f"split{fold}_test_score"][index] for fold in (0, 1)}
        assert points(store, run, "score") == scores
        for fold in (0, 1):
            for name in ("loss", "learning_rate"):
                curve = points(store, run, f"fold_{fold}/{name}")
                assert list(curve) == list(range(3 if index < 2 else 1))
                assert curve.items() <= points(store, runs[index % 2], f"fold_{fold}/{name}").items()
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags
