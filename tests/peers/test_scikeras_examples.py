"""What scikeras' documentation shows, searched bare and recorded: equal scores bit for bit, one run a combination.

Each case is written as its guides write it (basic usage, routed parameters, MLPClassifier, multiple inputs and outputs,
meta-estimators, autoencoders, sparse inputs, benchmarks), only smaller.
"""

from __future__ import annotations

import copy
import functools
import pickle
import warnings

import keras
import mlflow
import numpy as np
import pytest
from scikeras.utils.transformers import ClassifierLabelEncoder
from scikeras.wrappers import BaseWrapper, KerasClassifier, KerasRegressor
from scipy import sparse
from sklearn.base import TransformerMixin
from sklearn.ensemble import AdaBoostRegressor, BaggingClassifier
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, ShuffleSplit
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import mlflow_hp

pytestmark = pytest.mark.usefixtures("store")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 4)).astype("float32")
VALUES = (X @ np.array([1.0, -2.0, 0.5, 0.0], "float32")).astype("float32")
LABELS = (VALUES > 0).astype(int)
NAMES = np.array(["ham", "spam"])[LABELS]
WEIGHTS = RNG.uniform(0.5, 2, size=24)


def get_clf(meta, hidden_layer_sizes=(4,), dropout=0.0):
    """A function of scikeras' guides: it is told of the data, and leaves compiling to the wrapper."""
    model = keras.Sequential([keras.Input((meta["n_features_in_"],))])
    for size in hidden_layer_sizes:
        model.add(keras.layers.Dense(size, activation="relu"))
        model.add(keras.layers.Dropout(dropout))
    model.add(keras.layers.Dense(1, activation="sigmoid"))
    return model


def get_reg(meta, compile_kwargs, hidden=4):
    """Compiled in the function, with what the wrapper would compile with."""
    model = keras.Sequential([keras.Input((meta["n_features_in_"],)), keras.layers.Dense(hidden, "relu")])
    model.add(keras.layers.Dense(1))
    model.compile(loss=compile_kwargs["loss"] or "mse", optimizer=compile_kwargs["optimizer"])
    return model


def classifier(**settings):
    fixed = {"loss": "binary_crossentropy", "optimizer": "sgd", "epochs": 2, "batch_size": 8, "verbose": 0}
    return KerasClassifier(get_clf, **{**fixed, "random_state": 0, **settings})


def regressor(**settings):
    fixed = {"loss": "mse", "optimizer": "sgd", "epochs": 2, "batch_size": 8, "verbose": 0, "random_state": 0}
    return KerasRegressor(get_reg, **{**fixed, **settings})


class Case:
    """A search that is made by `search()`, as often as it is asked for, and what it is fitted to."""

    def __init__(self, estimator, grid, x=X, y=LABELS, kind=GridSearchCV, fit=None, **settings):
        self.estimator, self.grid, self.x, self.y, self.kind, self.fit = estimator, grid, x, y, kind, fit or {}
        self.settings = {"cv": ShuffleSplit(1, random_state=0), "refit": False, "error_score": "raise", **settings}

    def search(self):
        return self.kind(copy.deepcopy(self.estimator), self.grid, **self.settings)


class MLPClassifier(KerasClassifier):
    """A class of the user's own, with the model in it."""

    def __init__(
        self, hidden_layer_sizes=(4,), optimizer="adam", optimizer__learning_rate=0.01, epochs=2, verbose=0, **kw
    ):
        super().__init__(**kw)
        self.hidden_layer_sizes = hidden_layer_sizes
        self.optimizer = optimizer
        self.optimizer__learning_rate = optimizer__learning_rate
        self.epochs = epochs
        self.verbose = verbose

    def _keras_build_fn(self, compile_kwargs):
        model = keras.Sequential([keras.Input((self.n_features_in_,))])
        for size in self.hidden_layer_sizes:
            model.add(keras.layers.Dense(size, "relu"))
        model.add(keras.layers.Dense(1, "sigmoid"))
        model.compile(loss="binary_crossentropy", optimizer=compile_kwargs["optimizer"])
        return model


class TwoInputs(KerasRegressor):
    """Columns that go to two inputs."""

    @property
    def feature_encoder(self):
        return FunctionTransformer(func=lambda x: [x[:, :1], x[:, 1:]])


def get_two_inputs(units=3):
    inputs = [keras.Input((1,)), keras.Input((3,))]
    joined = keras.layers.Concatenate()([keras.layers.Dense(units)(each) for each in inputs])
    return keras.Model(inputs, keras.layers.Dense(1)(joined))


class TwoOutputs(KerasClassifier):
    """A binary and a ternary output of one model, encoded each for itself."""

    @property
    def target_encoder(self):
        return _Each()

    def score(self, x, y, sample_weight=None):
        return float(np.mean(self.predict(x) == y))


class _Each(ClassifierLabelEncoder):
    def fit(self, y):
        self.encoders_ = [ClassifierLabelEncoder().fit(column) for column in y.T]
        self.classes_ = [encoder.classes_ for encoder in self.encoders_]
        self.n_classes_ = [encoder.n_classes_ for encoder in self.encoders_]
        return self

    def transform(self, y):
        return [encoder.transform(column) for encoder, column in zip(self.encoders_, y.T, strict=True)]

    def inverse_transform(self, y, return_proba=False):
        return np.stack([np.argmax(each, 1) if each.shape[1] > 1 else (each[:, 0] > 0.5).astype(int) for each in y], 1)

    def get_metadata(self):
        return {"classes_": self.classes_, "n_classes_": self.n_classes_, "n_outputs_expected_": 2}


TWO_LOSSES = ["binary_crossentropy", "sparse_categorical_crossentropy"]


def get_two_outputs(meta, units=4):
    inputs = keras.Input((meta["n_features_in_"],))
    hidden = keras.layers.Dense(units, "relu")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(1, "sigmoid")(hidden), keras.layers.Dense(3, "softmax")(hidden)])


class AutoEncoder(BaseWrapper, TransformerMixin):
    """A transformer, as the guide on autoencoders has it."""

    def fit(self, X, y=None, **kwargs):  # noqa: N803
        return super().fit(X=X, y=X, **kwargs)

    def transform(self, X):  # noqa: N803
        return self.model_.predict(X, verbose=0)

    def score(self, X, y=None):  # noqa: N803
        return -float(np.mean((X - self.transform(X)) ** 2))


def get_autoencoder(code=2):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(code, "relu"), keras.layers.Dense(4)])


def get_image_model(meta, units=4):
    layers = [keras.Input((4,)), keras.layers.Reshape((2, 2, 1)), keras.layers.Conv2D(2, 2, activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(units), keras.layers.Dense(meta["n_classes_"], "softmax")]
    return keras.Sequential(layers)


def by_class(**settings):
    """Optimizer, loss, metrics and callbacks as classes, with parameters that are routed to them."""
    return classifier(
        optimizer=keras.optimizers.SGD, loss=keras.losses.BinaryCrossentropy, metrics=[keras.metrics.BinaryAccuracy],
        callbacks=[keras.callbacks.EarlyStopping, keras.callbacks.TerminateOnNaN], callbacks__0__monitor="loss",
        callbacks__0__patience=2, loss__label_smoothing=0.1,
        **settings,
    )  # fmt: skip


CASES = {
    "basic usage": Case(classifier(hidden_layer_sizes=(4,)), {"hidden_layer_sizes": [(3,), (4,)]}, y=NAMES, refit=True),
    "model__": Case(classifier(model__dropout=0.3), {"model__hidden_layer_sizes": [(3,), (4, 3)]}),
    "optimizer by name": Case(classifier(), {"optimizer": ["sgd", "rmsprop"]}, scoring=["accuracy", "f1"]),
    "optimizer__": Case(
        classifier(optimizer=keras.optimizers.SGD),
        {"optimizer__learning_rate": [0.1], "optimizer__momentum": [0.9]},
        cv=KFold(2),
    ),
    "by class, routed": Case(by_class(), {"loss__label_smoothing": [0.0, 0.2]}),
    "fit__": Case(classifier(fit__validation_split=0.25), {"fit__batch_size": [4, 8], "fit__shuffle": [False]}),
    "epochs": Case(classifier(), {"epochs": [1, 2]}, return_train_score=True),
    "batch_size and epochs": Case(
        regressor(), [{"batch_size": [4], "epochs": [1, 2]}, {"batch_size": [-1], "epochs": [1]}], y=VALUES
    ),
    "loss": Case(regressor(), {"loss": ["mse", "huber"]}, y=VALUES, scoring="r2"),
    "a callback instance": Case(
        classifier(callbacks=[keras.callbacks.ReduceLROnPlateau("loss", patience=1)]), {"model__dropout": [0.0, 0.5]}
    ),
    "sample_weight": Case(regressor(), {"model__hidden": [3, 4]}, y=VALUES, fit={"sample_weight": WEIGHTS}),
    "class_weight": Case(classifier(), {"class_weight": ["balanced", {"ham": 1.0, "spam": 3.0}]}, y=NAMES),
    "warm_start": Case(classifier(warm_start=True), {"optimizer__learning_rate": [0.1, 0.01]}),
    "unseeded": Case(classifier(random_state=None), {"model__dropout": [0.1, 0.5]}),
    "a pipeline": Case(
        Pipeline([("scale", StandardScaler()), ("clf", classifier())]), {"clf__model__dropout": [0.0, 0.5]}, refit=True
    ),
    "a pipeline, its steps searched": Case(
        make_pipeline(StandardScaler(), regressor()), {"standardscaler__with_mean": [True, False]}, y=VALUES
    ),
    "drawn at random": Case(
        classifier(),
        {"optimizer__learning_rate": [0.1, 0.01, 0.001], "epochs": [1, 2]},
        y=NAMES,
        kind=RandomizedSearchCV,
        n_iter=2,
        random_state=0,
    ),
    "a class of one's own": Case(MLPClassifier(random_state=0), {"hidden_layer_sizes": [(3,), (3, 3)]}),
    "two inputs": Case(
        TwoInputs(get_two_inputs, loss="mse", verbose=0, random_state=0, units=3),
        {"optimizer__learning_rate": [0.1, 0.01]},
        y=VALUES,
    ),
    "two outputs": Case(
        TwoOutputs(get_two_outputs, loss=TWO_LOSSES, verbose=0, random_state=0),
        {"optimizer__learning_rate": [0.1, 0.01]},
        y=np.stack([LABELS, np.arange(24) % 3], 1),
    ),
    "several outputs by scikit-learn": Case(
        MultiOutputRegressor(regressor(epochs=1)), {"estimator__epochs": [1, 2]}, y=np.stack([VALUES, -VALUES], 1)
    ),
    "bagging": Case(BaggingClassifier(classifier(epochs=1), n_estimators=2, random_state=0), {"max_samples": [0.5]}),
    "boosting": Case(
        AdaBoostRegressor(regressor(epochs=1), n_estimators=2, random_state=0), {"estimator__epochs": [2]}, y=VALUES
    ),
    "an autoencoder": Case(
        AutoEncoder(get_autoencoder, loss="mse", verbose=0, random_state=0, code=2),
        {"optimizer__learning_rate": [0.1, 0.01]},
        y=None,
    ),
    "images": Case(
        KerasClassifier(get_image_model, loss="sparse_categorical_crossentropy", verbose=0, random_state=0),
        {"optimizer__learning_rate": [0.1, 0.01]},
    ),
    "sparse inputs": Case(classifier(), {"model__dropout": [0.0, 0.5]}, x=sparse.csr_matrix(X)),
}


@functools.cache
def seed_sets_keras_generator():
    """Whether it does; earlier versions of Keras go on with the state of before."""
    drawn = [(keras.utils.set_random_seed(1), float(keras.random.uniform(())))[1] for _ in range(2)]
    return drawn[0] == drawn[1]


def fitted(case, search=None):
    """Fit it from one state of the random generators; every score in its results, as bytes."""
    seed_sets_keras_generator()  # which draws
    keras.utils.set_random_seed(1)
    search = search or case.search()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # those of scikeras and scikit-learn
        search.fit(case.x, case.y, **case.fit)
    after = [np.random.random()]  # noqa: NPY002 - what the user draws next
    if seed_sets_keras_generator():
        after.append(keras.random.uniform(()))
    scores = {
        name: values.tobytes() for name, values in search.cv_results_.items() if "_test_" in name or "_train_" in name
    }
    return scores, [float(each) for each in after], search


def predictions(search, x):
    return search.predict(x).tobytes() if search.refit else None


@pytest.mark.sampled(13)
@pytest.mark.parametrize("name", CASES)
def test_recorded_as_bare(name, store):
    case = CASES[name]
    scores, drawn, bare = fitted(case)
    recorded = case.search()
    with mlflow_hp.record_search(recorded, progress=False, report=False) as recording:
        ours, ours_drawn, _ = fitted(case, recorded)
    assert ours == scores
    assert ours_drawn == drawn
    assert predictions(recorded, case.x) == predictions(bare, case.x)
    parent = store.get_run(recording.run_id)
    runs = store.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{recording.run_id}'")
    assert [run.info.status for run in runs] == ["FINISHED"] * len(recorded.cv_results_["params"])
    assert parent.data.tags.get("mlflow_hp.recording_error") is None


@pytest.mark.thorough
def test_trained_on_after_the_search():
    """``partial_fit`` of what a recorded search found, and its copies, go on as those of a bare one."""
    case = Case(classifier(warm_start=True), {"optimizer__learning_rate": [0.1]}, refit=True)
    bare, recorded = case.search(), case.search()
    fitted(case, bare)
    with mlflow_hp.record_search(recorded, progress=False, report=False):
        fitted(case, recorded)
    for made in (copy.deepcopy, lambda found: pickle.loads(pickle.dumps(found)), lambda found: found):  # noqa: S301
        both = [made(search.best_estimator_) for search in (bare, recorded)]
        for found in both:
            keras.utils.set_random_seed(2)
            found.partial_fit(X, LABELS)
            found.fit(X, LABELS)
        one, other = (found.predict_proba(X).tobytes() for found in both)
        assert one == other
        assert both[0].history_["loss"] == both[1].history_["loss"]
    assert mlflow.active_run() is None
