"""Atlases of small networks: the descents are those of Keras, the run has all, bad input is refused."""

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import RecordingWarning, UserError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 4)).astype("float32")
Y = (X.sum(axis=1) > 0).astype(int)
AXES = {"learning_rate": [0.01, 0.1, 1.0, 1e4], "batch_size": [16, 32]}


def build(optimizer="SGD", dropout=0.0, **layer):
    layers = [keras.layers.Dense(8, "relu", **layer), keras.layers.Dropout(dropout), keras.layers.Dense(2, "softmax")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(getattr(keras.optimizers, optimizer)(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def quiet(builder=build, axes=AXES, **settings):
    return mlflow_hp.atlas(
        builder, X, Y, axes, **{"seeds": 2, "epochs": 3, "progress": False, "log": False, **settings}
    )


def test_a_descent_ends_as_keras_trains_it():
    found = quiet(validation_split=0.25)
    rows = np.random.default_rng(0).permutation(80)
    train, valid = rows[20:], rows[:20]
    keras.utils.set_random_seed(1)
    model = build()
    model.optimizer.learning_rate = 0.1
    rng = np.random.default_rng(1)
    for _ in range(3):
        order = train[rng.permutation(60)]
        model.fit(X[order], Y[order], batch_size=32, shuffle=False, verbose=0)
    assert found.loss[1, 1, 1] == pytest.approx(model.evaluate(X[valid], Y[valid], verbose=0)[0], rel=1e-4)
    assert found.loss.shape == (2, 4, 2)
    assert found.loss_name == "val_loss"


def test_the_run_has_picture_document_and_numbers(store):
    found = quiet(log=True)
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow_hp.kind"] == "atlas"
    assert run.data.params["learning_rate"] == "4 values from 0.01 to 1e+04"
    assert run.data.metrics["share_diverges"] == pytest.approx((found.outcomes == 3).mean())
    assert "diverge" in run.data.tags["mlflow.note.content"]
    numbers = np.load(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/atlas/atlas.npz"))
    np.testing.assert_array_equal(numbers["loss"], found.loss)
    assert numbers["curves"].shape == (2, 4, 2, 60)
    assert "How trainings end" in mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/atlas.html")
    assert mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/plots/atlas.png")


def test_the_active_run_is_used_and_stays_open(store):
    with mlflow.start_run() as run:
        quiet(log=True, seeds=1)
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert "share_good" in mlflow.get_run(run.info.run_id).data.metrics


@pytest.mark.parametrize(
    ("axes", "builder"),
    [
        ({"momentum": [0.0, 0.9], "learning_rate": [0.01, 0.1]}, build),
        ({"dropout": [0.0, 0.5], "epochs": [1, 4]}, lambda: build(dropout=0.1)),
        ({"learning_rate": [0.01, 0.1], "beta_1": [0.5, 0.9]}, lambda: build("Adam")),
    ],
)
def test_any_two_numbers_are_axes(axes, builder):
    found = quiet(builder, axes)
    assert found.loss.shape == (2, 2, 2)
    assert np.ptp(found.loss[:, :, 0]) > 0


class Custom(keras.layers.Layer):
    def call(self, x):
        return x


def custom():
    model = keras.Sequential([keras.Input((4,)), Custom(), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": {"learning_rate": [0.1, 0.2]}}, "has to name two hyperparameters"),
        ({"axes": {"learning_rate": [0.1], "batch_size": [1, 2]}}, "two or more different numbers"),
        ({"axes": {"learning_rate": ["a", "b"], "batch_size": [1, 2]}}, "two or more different numbers"),
        ({"axes": {"learning_rate": [0.1, np.nan], "batch_size": [1, 2]}}, "two or more different numbers"),
        ({"axes": {"learning_rate": [-0.1, 0.1], "batch_size": [1, 2]}}, "with 0 nothing is trained"),
        ({"axes": {"learning_rate": [0.0, 0.1], "batch_size": [1, 2]}}, "with 0 nothing is trained"),
        ({"axes": {"learning_rate": [0.1, 1e300], "batch_size": [1, 2]}}, "to 3.4e\\+38"),
        ({"axes": {"learning_rate": [1e-60, 0.1], "batch_size": [1, 2]}}, "from 1.2e-38"),
        ({"axes": {"learning_rate": [0.1, 0.2], "momentum": [-0.5, 0.5]}}, "0, or from"),
        ({"axes": {"learning_rate": [0.1, 0.2], "batch_size": [1, 1e12]}}, "whole numbers"),
        ({"axes": {"learning_rate": [0.1, 0.2], "batch_size": [1.5, 2]}}, "whole numbers"),
        ({"axes": {"learning_rate": [0.1, 0.2], "speed": [1, 2]}}, "the model has no speed; it has batch_size"),
        ({"axes": {"dropout": [0.1, 1.0], "batch_size": [1, 2]}}, "below 1"),
        ({"seeds": 0}, "seeds=0 is no number"),
        ({"epochs": 1.5}, "epochs=1.5 is no number"),
        ({"validation_split": 1.0}, "no share"),
        ({"builder": lambda: "model"}, "not a compiled Keras model"),
        ({"builder": custom}, "cannot be trained: .*Custom"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(change, message):
    with pytest.raises(UserError, match=message):
        quiet(**change)


@pytest.mark.parametrize("x", [{"dropout": [0.0, 0.2, 0.4]}, {"learning_rate": [0.01, 0.1, 1.0]}])
@pytest.mark.parametrize("y", [{"momentum": [0.0, 0.5, 0.9]}, {"batch_size": [20, 40, 60]}])
def test_an_axis_may_start_at_0(x, y, store):
    found = quiet(lambda: build(dropout=0.1), {**x, **y}, log=True)
    assert ("the value 0" in found.sentences()[-1]) == ("dropout" in x or "momentum" in y)


def test_batches_beyond_the_rows_are_all_rows():
    found = quiet(axes={"learning_rate": [0.1, 0.2], "batch_size": [64, 100, 2**31 - 1]})
    assert np.array_equal(found.loss[0], found.loss[1])
    assert np.array_equal(found.loss[0], found.loss[2])


def test_a_refused_model_leaves_no_run(store):
    before = len(mlflow.search_runs(search_all_experiments=True))
    with pytest.raises(UserError):
        quiet(custom, log=True)
    assert len(mlflow.search_runs(search_all_experiments=True)) == before


def test_a_store_that_refuses_takes_nothing_of_the_result(store, monkeypatch):
    def refuse(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("mlflow_hp.tracking.runs.upload", refuse)
    with pytest.warns(RecordingWarning, match="not logged in full .*no space left"):
        assert quiet(log=True, seeds=1).loss.shape == (2, 4, 1)


def test_an_interrupted_atlas_is_killed(store, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow_hp.search.vectorised.train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        quiet(log=True, seeds=1)
    assert mlflow.active_run() is None
    assert mlflow.search_runs(output_format="list", max_results=1)[0].info.status == "KILLED"
