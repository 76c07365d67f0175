"""The loss between two ends against formulas, permuted copies of one network, and the model left as it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mlflow_hp import barrier
from mlflow_hp.errors import UserError
from mlflow_hp.history import Snapshots
from mlflow_hp.training.capture.step_layout import tensors_of
from tests.helpers.fits import LABELS, X, Y, network, regression

RNG = np.random.default_rng(4)
PICTURES = RNG.normal(size=(24, 8, 8, 3)).astype("float32")
KINDS = RNG.integers(0, 3, 24)


def snapshots(weights):
    return Snapshots(np.array([0]), {name: np.asarray(v, np.float32)[None] for name, v in weights.items()}, 1, 0)


def trainable(model):
    return {t.name: np.array(v) for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}


def compiled(model, loss="sparse_categorical_crossentropy", **how):
    model.compile("adam", loss, **how)
    for variable in model.trainable_variables:  # also biases, which begin as zeros
        variable.assign_add(0.1 * RNG.normal(size=variable.shape))
    return model


def between(first, second, model, x, y, **how):
    how = {"curve_steps": 0, "progress": False} | how
    return barrier(snapshots(first), snapshots(second), model, x, y, **how)


class TwoWeights(keras.layers.Layer):
    """Gives its two weights for each row, whatever its inputs are."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2,), name="w")

    def call(self, inputs):
        return 0 * inputs + self.w


def ring():
    """Loss (|w|^2 - 1)^2: a ring of minima, with a maximum of 1 in its middle."""
    model = keras.Sequential([keras.Input((2,)), TwoWeights(name="point")])
    model.compile(loss=lambda _, w: keras.ops.square(keras.ops.sum(w**2, axis=-1) - 1))
    return model


def on_ring(degrees, radius=1.0):
    return {"point/w": radius * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])}


ONES = np.ones((4, 2), "float32")


def test_the_barrier_between_two_minima_is_that_of_the_formula():
    result = between(on_ring(0), on_ring(180), ring(), ONES, ONES)
    np.testing.assert_allclose(result.line, ((1 - 2 * result.t) ** 2 - 1) ** 2, atol=1e-6)
    assert result.line_barrier == pytest.approx(1)
    assert result.curve is None
    assert result.metrics() == {"barrier/line": pytest.approx(1)}


def test_the_barrier_is_above_the_line_between_unequal_ends():
    result = between(on_ring(0), on_ring(180, 1.5), ring(), ONES, ONES, n_points=101)
    t = np.linspace(0, 1, 101)
    loss = ((1 - 2.5 * t) ** 2 - 1) ** 2
    assert result.line_barrier == pytest.approx(max(loss - t * 1.25**2), rel=1e-5)


def test_no_barrier_where_the_loss_is_convex():
    model = regression()
    ends = [{"out/kernel": np.full((3, 1), w), "out/bias": np.zeros(1)} for w in (-1.0, 2.0)]
    result = between(*ends, model, X, Y)
    assert result.line_barrier == 0
    residuals = [X @ np.full(3, -1 + 3 * t) - Y for t in result.t]
    np.testing.assert_allclose(result.line, np.mean(np.square(residuals), axis=1), rtol=1e-5)
    assert result.alignment == "left out: the model has no hidden units that are trained"


@pytest.mark.parametrize("how", [{}, {"run_eagerly": True}])
def test_the_trained_curve_goes_around_the_barrier(how):
    model = ring()
    model.run_eagerly = bool(how)
    result = between(on_ring(0), on_ring(120), model, ONES, ONES, curve_steps=50 if how else 300)
    assert result.line_barrier == pytest.approx(0.75**2, rel=1e-3)
    assert result.curve_barrier < (0.5 if how else 0.02)
    w = np.stack([(1 - t) ** 2 * on_ring(0)["point/w"] + 2 * t * (1 - t) * result.bend["point/w"]
                  + t**2 * on_ring(120)["point/w"] for t in result.t])  # fmt: skip
    np.testing.assert_allclose(result.curve, (np.sum(w**2, axis=1) - 1) ** 2, atol=1e-5)


def test_a_seed_gives_one_curve():
    bends = [between(on_ring(0), on_ring(120), ring(), ONES, ONES, curve_steps=20, seed=seed).bend["point/w"]
             for seed in (1, 1, 2)]  # fmt: skip
    assert np.array_equal(bends[0], bends[1])
    assert not np.array_equal(bends[0], bends[2])


def perceptron():
    layers = [keras.layers.Dense(9, "relu"), keras.layers.Dropout(0.5), keras.layers.Dense(8, "tanh")]
    return compiled(keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, "softmax")]))


def with_norms():
    hidden = inputs = keras.Input((3,))
    for layer in (
        keras.layers.Dense(9, use_bias=False), keras.layers.BatchNormalization(), keras.layers.Activation("relu"),
        keras.layers.Dense(8), keras.layers.LayerNormalization(), keras.layers.PReLU(),
        keras.layers.Dense(2, "softmax"),
    ):  # fmt: skip
        hidden = layer(hidden)
    return compiled(keras.Model(inputs, hidden))


def pictures():
    layers = [
        keras.layers.Conv2D(6, 3), keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(5, 2, activation="relu"), keras.layers.Flatten(), keras.layers.Dropout(0.2),
        keras.layers.Dense(7, "relu"),
    ]  # fmt: skip
    return compiled(keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3, "softmax")]))


def permuted_copy(model, x):
    """Permute hidden units by hand: outputs of each layer but the last, inputs of the next."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    order, orders = None, {}
    with_kernel = [layer for layer in copy.layers if hasattr(layer, "kernel")]
    for layer in copy.layers:
        flat = None if order is None else order
        if layer in with_kernel:
            kernel = layer.kernel.numpy()
            n = kernel.shape[-2]
            if flat is not None and n != len(order):  # flattened: row, column, channel
                flat = np.arange(n).reshape(-1, len(order))[:, order].reshape(-1)
            kernel = kernel if flat is None else kernel[..., flat, :]
            order = RNG.permutation(kernel.shape[-1]) if layer is not with_kernel[-1] else np.arange(kernel.shape[-1])
            orders[layer.name] = order
            layer.kernel.assign(kernel[..., order])
            if layer.use_bias:
                layer.bias.assign(layer.bias.numpy()[order])
        else:
            for variable in layer.weights:
                variable.assign(variable.numpy()[..., order])
    np.testing.assert_allclose(copy(x), model(x), atol=1e-5)
    del orders[with_kernel[-1].name]
    return copy, orders


@pytest.mark.parametrize(
    ("make", "x", "y"), [(perceptron, X, LABELS), (with_norms, X, LABELS), (pictures, PICTURES, KINDS)]
)
def test_a_permuted_copy_has_no_barrier_once_it_is_aligned(make, x, y):
    model = make()
    copy, orders = permuted_copy(model, x)
    result = between(trainable(model), trainable(copy), model, x, y)
    assert result.line_barrier > 0.01
    assert result.aligned_barrier < 1e-5
    np.testing.assert_allclose(result.aligned, result.line[0], rtol=1e-4)
    for name, order in orders.items():
        assert np.array_equal(result.permutations[name], np.argsort(order))
    for name, values in trainable(model).items():
        np.testing.assert_allclose(result.aligned_weights[name], values, rtol=1e-6)
    n = sum(map(len, orders.values()))
    assert f"of {n} hidden units of run_b change their places" in result.alignment


def test_batch_normalisation_takes_the_statistics_of_the_rows_at_each_point():
    model = network()
    first = trainable(model)
    second = {name: RNG.normal(size=values.shape).astype("float32") for name, values in first.items()}
    result = between(first, second, model, X, LABELS, n_points=5, align=False)
    for t, loss in zip(result.t, result.line, strict=True):
        w = {name: (1 - t) * first[name].astype(float) + t * second[name] for name in first}
        hidden = np.maximum(X @ w["hidden/kernel"] + w["hidden/bias"], 0)
        hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-3) * w["norm/gamma"] + w["norm/beta"]
        outputs = np.exp(hidden @ w["out/kernel"] + w["out/bias"])
        shares = outputs / outputs.sum(axis=1, keepdims=True)
        assert loss == pytest.approx(-np.log(shares[np.arange(37), LABELS]).mean(), rel=1e-4)
    assert result.batch_norm == "statistics of 37 rows at each point"
    assert result.alignment == "left out on request"


def skipping():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, "relu", name="first")(inputs)
    hidden = keras.layers.Add(name="joined")([hidden, keras.layers.Dense(4)(hidden)])
    return compiled(keras.Model(inputs, keras.layers.Dense(2, "softmax")(hidden)))


def recurrent():
    layers = [keras.layers.Reshape((3, 1)), keras.layers.SimpleRNN(4), keras.layers.Dense(2, "softmax")]
    return compiled(keras.Sequential([keras.Input((3,)), *layers]))


def inner():
    inside = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu")], name="inside")
    return compiled(keras.Sequential([keras.Input((3,)), inside, keras.layers.Dense(2, "softmax")]))


def unequal_units():
    def first_only(values):
        return values * keras.ops.array([1.0, 0, 0, 0])

    layers = [keras.layers.Dense(4, activation=first_only), keras.layers.Dense(2, "softmax")]
    return compiled(keras.Sequential([keras.Input((3,)), *layers]))


def partly_frozen():
    model = network()
    model.get_layer("out").trainable = False
    return compiled(model)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (skipping, "branch or join"),
        (recurrent, "SimpleRNN .* is unknown"),
        (inner, "'inside' is a model inside it"),
        (unequal_units, "does not treat all units alike"),
        (partly_frozen, "'out' after trained ones is frozen"),
    ],
)
def test_alignment_is_left_out_where_units_are_unknown_and_the_reason_is_told(make, reason):
    model = make()
    first = trainable(model)
    second = {name: values[..., ::-1] for name, values in first.items()}
    result = between(first, second, model, X, LABELS)
    assert result.aligned is result.aligned_weights is result.aligned_barrier is None
    assert result.permutations == {}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(result.alignment)
    assert result.alignment.startswith("left out: ")
    assert np.isfinite(result.line).all()


def test_the_model_stays_as_it_was_also_if_its_loss_fails():
    model = network()
    model.fit(X, LABELS, verbose=0)
    first, calls = trainable(model), []
    second = {name: values + 0.5 for name, values in first.items()}

    def state():
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return [np.asarray(variable).tobytes() for variable in variables], [set(vars(layer)) for layer in model.layers]

    before = state()
    between(first, second, model, X, LABELS, curve_steps=3)
    assert state() == before

    def failing(y, predicted):
        calls.append(y)
        if len(calls) > n_good:
            raise RuntimeError("no loss")
        return keras.losses.sparse_categorical_crossentropy(y, predicted)

    for n_good in (0, 2, 4):  # noqa: B007 - read by the loss
        calls.clear()
        model.compile("sgd", failing, run_eagerly=True)
        before = state()
        with pytest.raises(RuntimeError, match="no loss"):
            between(first, second, model, X, LABELS, curve_steps=3)
        assert state() == before


def test_a_loss_on_the_way_that_is_not_finite_is_an_infinite_barrier():
    model = regression(loss=lambda y, p: 1 / (p - p + keras.ops.max(keras.ops.abs(p))) + 0 * y)
    ends = [{"out/kernel": np.full((3, 1), w), "out/bias": np.zeros(1)} for w in (-1.0, 1.0)]
    result = between(*ends, model, np.ones((4, 3)), np.ones(4))
    assert result.line_barrier == np.inf
    assert result.to_dict()["barriers"] == {"line": "inf"}
    assert "inf" in result.to_dict()["losses"]["line"]


def test_what_does_not_fit_is_said():
    model, weights = regression(), {"out/kernel": np.ones((3, 1)), "out/bias": np.zeros(1)}

    def result(second=weights, model=model, x=X, y=Y, **how):
        return between(weights, second, model, x, y, **how)

    with pytest.raises(UserError, match=r"'run_a' and run 'run_b' differ in the tensors out/kernel"):
        result({"out/kernel": np.ones((4, 1)), "out/bias": np.zeros(1)})
    with pytest.raises(UserError, match=r"run 'run_a' and the model differ in the tensors"):
        result(model=network())
    with pytest.raises(UserError, match=r"'run_b' ended with are not finite \(out/kernel\)"):
        result({"out/kernel": np.array([[1.0], [np.nan], [1]]), "out/bias": np.zeros(1)})
    with pytest.raises(UserError, match=r"loss at the end of run 'run_a' is nan"):
        result(x=np.full_like(X, np.nan))
    with pytest.raises(UserError, match="no data"):
        result(y=None)
    with pytest.raises(UserError, match="neither run has a logged model"):
        result(model=None)
    with pytest.raises(UserError, match="n_points=2 "):
        result(n_points=2)
    with pytest.raises(UserError, match="curve_steps=-1 "):
        result(curve_steps=-1)
    with pytest.raises(UserError, match="not compiled"):
        result(model=keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]))
    with pytest.raises(UserError, match="no trainable weights"):
        barrier(snapshots({}), snapshots({}), model, X, Y)
