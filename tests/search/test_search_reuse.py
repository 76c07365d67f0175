"""Reused models give the numbers of new ones, and nobody sees his model change."""

from __future__ import annotations

import contextlib
import gc

import joblib
import keras
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from scikeras.wrappers import KerasClassifier, KerasRegressor
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, _search
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlflow_hp.search.speedups import model_reuse
from mlflow_hp.search.speedups.model_reuse import forget_models, reused_models
from mlflow_hp.search.speedups.model_signature import NotShareableError, architecture
from tests.helpers.keras_searches import dropout_mlp

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype("float32"), Y[:300]


@pytest.fixture(autouse=True)
def nothing_kept():
    forget_models()
    yield
    forget_models()


def normed(learning_rate=0.1):
    """Batch normalisation, a skip connection, a penalty, a learning rate schedule."""
    inputs = keras.Input((64,))
    hidden = keras.layers.Dense(8, "relu", kernel_regularizer="l2")(inputs)
    hidden = keras.layers.Add()([hidden, keras.layers.BatchNormalization()(hidden)])
    model = keras.Model(inputs, keras.layers.Dense(10, "softmax")(hidden))
    schedule = keras.optimizers.schedules.ExponentialDecay(learning_rate, 5, 0.9)
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy")
    return model


def searched(monkeypatch, estimator, grid, folds, *, reused):
    """Results of a search, and the records of its reuse."""
    halves = [(np.arange(150, 300), np.arange(150)), (np.arange(150), np.arange(150, 300))]
    records = []
    fit_and_score = _search._fit_and_score

    def one(*arguments, **options):
        with reused_models() as record:
            records.append(record)
            return fit_and_score(*arguments, **options)

    keras.utils.set_random_seed(0)
    asked = {"cv": halves[:folds], "refit": False, "return_train_score": True, "error_score": "raise"}
    search = GridSearchCV(estimator, grid, **asked)
    with monkeypatch.context() as patch:
        if reused:
            patch.setattr(_search, "_fit_and_score", one)
        found = search.fit(X, Y).cv_results_
    scores = {key: value for key, value in found.items() if "split" in key}
    return scores, sum(record.n_reused for record in records), records


def classifier(model=dropout_mlp, **named):
    return KerasClassifier(model, **{"epochs": 2, "batch_size": 32, "verbose": 0, "random_state": 0, **named})


KERAS = tuple(int(number) for number in keras.__version__.split(".")[:2])
"""Older versions may hold a callback's model for longer, so that fewer are reused."""


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("estimator", "grid", "folds", "counts"),
    [
        (classifier(), [{"model__learning_rate": [0.3]}, {"model__init": ["he_normal"]}], 1, {1}),
        (classifier(random_state=None), [{"model__learning_rate": [0.03]}, {"model__init": ["uniform"]}], 1, {1}),
        (classifier(random_state=None), [{"batch_size": [30, 64]}, {"batch_size": [70], "epochs": [3]}], 1, {1}),
        (classifier(validation_split=0.2), [{"model__optimizer": ["Adam"], "model__dropout": [0.0]},
                                            {"model__optimizer": ["Adagrad"], "model__dropout": [0.5]}], 2, {2}),
        (classifier(normed), {"model__learning_rate": [0.1]}, 2, {1}),
        (classifier(callbacks=keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, min_delta=9.0)),
         {"model__learning_rate": [0.3, 0.03]}, 2, {3} if KERAS >= (3, 15) else {0, 1, 2, 3}),
    ],
)  # fmt: skip
def test_scores_are_those_of_new_models(monkeypatch, estimator, grid, folds, counts):
    bare, _, _ = searched(monkeypatch, estimator, grid, folds, reused=False)
    shared, found, _ = searched(monkeypatch, estimator, grid, folds, reused=True)
    for key, scores in bare.items():
        np.testing.assert_array_equal(shared[key], scores, err_msg=key)
    assert found in counts
    scores = [score for fold in range(folds) for score in bare[f"split{fold}_test_score"]]
    assert len(set(scores)) == len(scores)  # or it would be easy


def test_weights_and_random_generators_are_as_without():
    def second_fit(*, reused):
        keras.utils.set_random_seed(5)
        for learning_rate in (0.3, 0.03):
            estimator = classifier(random_state=None, model__learning_rate=learning_rate)
            with reused_models() if reused else contextlib.nullcontext():
                estimator.fit(X, Y)
            model = estimator.model_
            state = [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables), np.random.rand()]  # noqa: NPY002
            history = dict(estimator.history_)
            del estimator, model
        return state, history

    (bare, history), (shared, shared_history) = second_fit(reused=False), second_fit(reused=True)
    assert shared_history == history
    for one, other in zip(bare, shared, strict=True):
        np.testing.assert_array_equal(one, other)


def test_regressor_in_a_pipeline():
    def build(learning_rate=0.01):
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.RMSprop(learning_rate), "mse")
        return model

    regressor = KerasRegressor(build, epochs=2, verbose=0, random_state=1)
    pipeline = make_pipeline(StandardScaler(), regressor)
    bare = clone(pipeline).fit(X, Y).predict(X)
    for expected in (0, 1):
        with reused_models() as record:
            fitted = clone(pipeline).fit(X, Y)
        np.testing.assert_array_equal(fitted.predict(X), bare)
        assert record.n_reused == expected
        del fitted


def test_outside_of_the_block_nothing_is_reused_or_patched():
    from scikeras.wrappers import BaseWrapper

    original = BaseWrapper._fit_keras_model
    with reused_models():
        assert BaseWrapper._fit_keras_model is not original
        model = id(classifier().fit(X, Y).model_)
    assert BaseWrapper._fit_keras_model is original
    assert id(classifier().fit(X, Y).model_) != model


def test_a_training_that_fails_leaves_no_model():
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError

    for estimator in (classifier(), classifier(callbacks=Fails())):
        with reused_models(), pytest.raises(ZeroDivisionError) if estimator.callbacks else contextlib.nullcontext():
            estimator.fit(X, Y)
        del estimator
    gc.collect()
    with reused_models() as record:
        classifier().fit(X, Y)
    assert record.n_reused == 0


class OwnLayer(keras.layers.Layer):
    def call(self, x):
        return x * 2


class OwnModel(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class OwnSGD(keras.optimizers.SGD):
    pass


class OwnPenalty(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x)

    def get_config(self):
        return {}


def own_loss(y_true, y_pred):
    return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def compiled(model, optimizer="sgd", loss="mse", **named):
    model.compile(optimizer, loss, **named)
    return model


def chain(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def adapted():
    layer = keras.layers.Normalization()
    layer.adapt(np.ones((8, 4)))
    return layer


def with_own_call():
    layer = keras.layers.Dense(2)
    layer.call = lambda x: x
    return layer


def own_model():
    inputs = keras.Input((4,))
    return OwnModel(inputs, keras.layers.Dense(2)(inputs))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: compiled(chain(OwnLayer())), "OwnLayer"),
        (lambda: compiled(chain(keras.layers.Reshape((2, 2)), keras.layers.TimeDistributed(OwnLayer()))), "OwnLayer"),
        (lambda: compiled(chain(chain(OwnLayer()))), "OwnLayer"),
        (lambda: compiled(chain(keras.layers.Lambda(lambda x: x))), "Lambda"),
        (lambda: compiled(chain(adapted())), "adapted"),
        (lambda: compiled(chain(with_own_call())), "overrides call"),
        (lambda: compiled(own_model()), "OwnModel"),
        (lambda: compiled(chain(keras.layers.Dense(2, activation=lambda x: x))), "not Keras' own"),
        (lambda: compiled(chain(keras.layers.Dense(2)), loss=own_loss), "own_loss"),
        (lambda: compiled(chain(keras.layers.Dense(2)), metrics=[own_loss]), "own_loss"),
        (lambda: compiled(dropout_mlp(), metrics=[keras.metrics.MeanMetricWrapper(own_loss)]), "own_loss"),
        (lambda: compiled(chain(keras.layers.Dense(2)), OwnSGD()), "OwnSGD"),
        (lambda: compiled(chain(keras.layers.Dense(2, kernel_regularizer=OwnPenalty()))), "OwnPenalty"),
        (lambda: compiled(chain(keras.layers.Dense(2)), keras.optimizers.SGD(lambda: 0.1)), "learning_rate of"),
        (lambda: compiled(chain(keras.layers.Dense(2)), run_eagerly=True), "eagerly"),
        (lambda: compiled(keras.Sequential([keras.layers.Dense(2)])), "by its first batch only"),
    ],
)  # fmt: skip
def test_unsafe_models_opt_out(model, reason):
    with pytest.raises(NotShareableError, match=reason):
        architecture(model())


@pytest.mark.parametrize("change", [{"units": 17}, {"dropout": 0.4}, {"momentum": 0.8}, {"optimizer": "Adam"}])
def test_what_is_traced_is_told_apart(change):
    assert architecture(dropout_mlp(**change)) != architecture(dropout_mlp())


def test_what_is_state_is_not():
    assert architecture(dropout_mlp(learning_rate=0.5, init="zeros")) == architecture(dropout_mlp())
    assert architecture(normed()) == architecture(normed())
    assert architecture(normed(0.2)) != architecture(normed())
    assert architecture(compiled(dropout_mlp(), metrics=["mse"])) != architecture(
        compiled(dropout_mlp(), metrics=["mae"])
    )


def test_few_models_are_kept(monkeypatch):
    def alive_after(units):
        with reused_models():
            classifier(model__units=units, epochs=1).fit(X, Y)
        gc.collect()
        models = [each for each in gc.get_objects() if type(each) is keras.Sequential]
        return sorted(model.layers[0].units for model in models if 31 <= model.layers[0].units <= 34)

    # which of them are kept does not ask what they were trained to
    monkeypatch.setattr(keras.Sequential, "fit", lambda *_, **__: keras.callbacks.History())
    monkeypatch.setattr(model_reuse, "MAX_MODELS", 2)
    assert [alive_after(units) for units in (31, 32, 33)] == [[31], [31, 32], [32, 33]]
    monkeypatch.setattr(model_reuse, "MAX_BYTES", 1)
    assert alive_after(34) == [34]


def in_worker(learning_rate):
    import os

    with reused_models() as record:
        score = classifier(model__learning_rate=learning_rate).fit(X, Y).score(X, Y)
    return os.getpid(), record.n_reused, score


@pytest.mark.thorough
@pytest.mark.slow
def test_workers_keep_models_between_tasks():
    get_reusable_executor().shutdown()  # loky ends workers that grow, as those of other tests do with TensorFlow
    rates = [0.3, 0.1, 0.03]
    done = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(in_worker)(rate) for rate in rates)
    workers = {pid for pid, _, _ in done}
    assert sum(n for _, n, _ in done) == len(rates) - len(workers) > 0
    assert [score for _, _, score in done] == [classifier(model__learning_rate=r).fit(X, Y).score(X, Y) for r in rates]
