"""The models of the experiments: what they are made of, and that every name that can be chosen trains."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mlflow_hp.errors import UserError
from projects import arguments, models
from projects.datasets.samples import Samples

RNG = np.random.default_rng(4)
NUMBERS_LOSSES = ["mean_squared_error", "mean_absolute_error", "huber", "log_cosh"]


def samples(n_classes, n=24, n_features=5):
    x = RNG.normal(size=(n, n_features)).astype("float32")
    y = np.arange(n) % n_classes if n_classes else x[:, 0]
    names = [f"class {index}" for index in range(n_classes)]
    features = [f"x{index}" for index in range(n_features)]
    return Samples(x, y, x, y, x, y, names, None, features, "drawn", "", "")


CLASSES, NUMBERS = samples(3), samples(0)


def names(model):
    return [layer.name for layer in model.layers]


def test_a_perceptron_for_classes():
    model = models.perceptron(CLASSES, (7, 4), activation="tanh", initializer="he_normal")
    assert names(model) == ["hidden_1", "hidden_2", "out"]
    assert [w.shape for w in model.weights] == [(5, 7), (7,), (7, 4), (4,), (4, 3), (3,)]
    assert [layer.activation.__name__ for layer in model.layers] == ["tanh", "tanh", "softmax"]
    assert {type(layer.kernel_initializer).__name__ for layer in model.layers} == {"HeNormal"}
    values = [w.numpy() for w in model.weights]
    hidden = np.tanh(np.tanh(CLASSES.x_train @ values[0] + values[1]) @ values[2] + values[3])
    logits = hidden @ values[4] + values[5]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(CLASSES.x_train, verbose=0), expected, rtol=1e-4)


def test_a_perceptron_for_numbers_ends_in_one_linear_unit():
    model = models.perceptron(NUMBERS, (6,))
    assert model.output_shape == (None, 1)
    assert [layer.activation.__name__ for layer in model.layers] == ["relu", "linear"]


def test_dropout_is_behind_each_hidden_layer():
    model = models.perceptron(CLASSES, (4, 4), dropout=0.25)
    assert names(model) == ["hidden_1", "dropout_1", "hidden_2", "dropout_2", "out"]
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25]


@pytest.mark.parametrize("name", models.initializer_names())
def test_every_initializer_makes_weights_of_its_kind(name):
    keras.utils.set_random_seed(0)
    weights = models.perceptron(CLASSES, (40,), initializer=name).layers[0].kernel.numpy()
    again = models.perceptron(CLASSES, (40,), initializer=name).layers[0].kernel.numpy()
    if name in ("ones", "zero"):
        assert (weights == (name == "ones")).all()
        return
    assert not np.array_equal(weights, again)
    fans = {"glorot": (5 + 40) / 2, "he": 5 / 2, "lecun": 5}
    variance = next((1 / fan for kind, fan in fans.items() if name.startswith(kind)), None)
    if variance is not None:
        assert weights.std() == pytest.approx(np.sqrt(variance), rel=0.2)
        assert np.abs(weights).max() < (np.sqrt(3 * variance) if "uniform" in name else 2.3 * np.sqrt(variance))
    elif name == "orthogonal":
        np.testing.assert_allclose(weights @ weights.T, np.eye(5), atol=1e-5)
    else:
        assert 0.02 < weights.std() < 0.06


@pytest.mark.parametrize("name", models.activation_names())
def test_every_activation_is_keras_own(name):
    model = models.perceptron(NUMBERS, (4,), activation=name)
    assert model.layers[0].activation is getattr(keras.activations, name)


def test_sizes_reach_the_perceptron_and_read_back():
    assert arguments.sizes("64-32-7") == (64, 32, 7)
    assert arguments.sizes("5") == (5,)
    assert arguments.text_of((64, 32, 7)) == "64-32-7"
    assert arguments.sizes(arguments.text_of((9,))) == (9,)
    assert arguments.label({"hidden": (8, 8)}, ["hidden"]) == "hidden=8-8"
    for text in ("", "64-", "-64", "64x64", "0", "64-0", "1.5"):
        with pytest.raises(ValueError, match="such as 64-64"):
            arguments.sizes(text)


@pytest.mark.sampled(6)
@pytest.mark.parametrize("loss", models.loss_names())
def test_every_loss_trains_on_classes(loss):
    chosen = models.loss_for(CLASSES, loss)
    labels = models.labels_for(CLASSES, CLASSES.y_train, chosen)
    if chosen == "sparse_categorical_crossentropy":
        np.testing.assert_array_equal(labels, CLASSES.y_train)
    else:
        np.testing.assert_array_equal(labels, np.eye(3)[CLASSES.y_train])
    keras.utils.set_random_seed(1)
    model = models.perceptron(CLASSES, (6,))
    model.compile(models.optimizer("SGD", 0.0), loss=chosen, metrics=models.metrics_for(CLASSES))
    before = model.predict(CLASSES.x_train, verbose=0)
    shown = model.fit(CLASSES.x_train, labels, batch_size=24, verbose=0).history
    assert np.isfinite(shown["loss"][0])
    assert shown["accuracy"][0] == pytest.approx(np.mean(before.argmax(axis=1) == CLASSES.y_train))
    if chosen.endswith("categorical_crossentropy"):
        expected = -np.log(before[np.arange(24), CLASSES.y_train]).mean()
        assert shown["loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("loss", ["auto", *NUMBERS_LOSSES])
def test_losses_of_numbers_train(loss):
    chosen = models.loss_for(NUMBERS, loss)
    labels = models.labels_for(NUMBERS, NUMBERS.y_train, chosen)
    assert labels.shape == (24, 1)
    model = models.perceptron(NUMBERS, (6,))
    model.compile(models.optimizer("SGD", 0.0), loss=chosen, metrics=models.metrics_for(NUMBERS))
    error = model.predict(NUMBERS.x_train, verbose=0)[:, 0] - NUMBERS.y_train
    shown = model.fit(NUMBERS.x_train, labels, batch_size=24, verbose=0).history
    expected = {
        "mean_squared_error": error**2,
        "mean_absolute_error": np.abs(error),
        "huber": np.where(np.abs(error) < 1, error**2 / 2, np.abs(error) - 0.5),
        "log_cosh": np.log(np.cosh(error)),
    }
    assert shown["loss"][0] == pytest.approx(expected[chosen].mean(), rel=1e-4)
    assert shown["mean_absolute_error"][0] == pytest.approx(np.abs(error).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", [name for name in models.loss_names() if name not in ("auto", *NUMBERS_LOSSES)])
def test_a_loss_of_classes_where_numbers_are_to_be_predicted(loss):
    with pytest.raises(UserError, match=rf"loss={loss} needs classes.*mean_squared_error"):
        models.loss_for(NUMBERS, loss)


def test_auto_is_the_usual_loss():
    assert models.loss_for(CLASSES, "auto") == "categorical_crossentropy"
    assert models.loss_for(NUMBERS, "auto") == "mean_squared_error"


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", models.optimizer_names())
def test_every_optimizer_trains(name):
    model = models.perceptron(CLASSES, (4,))
    model.compile(models.optimizer(name, 0.01), loss="sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(CLASSES.x_train, CLASSES.y_train, batch_size=24, epochs=2, verbose=0)
    assert any((one != other).any() for one, other in zip(before, model.get_weights(), strict=True))


def test_settings_reach_the_optimizer():
    sgd = models.optimizer("SGD", 0.1, momentum=0.9, nesterov=True, rho=None)
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)
    rmsprop = models.optimizer("RMSprop", 0.1, momentum=0.5, rho=0.7, nesterov=False)
    assert (rmsprop.momentum, rmsprop.rho) == (0.5, 0.7)
    assert models.optimizer("RMSprop", 0.1, rho=None).rho == keras.optimizers.RMSprop().rho


def test_a_setting_of_0_is_one_too():
    assert models.optimizer("RMSprop", 0.1, rho=0.0).rho == 0
    assert models.optimizer("SGD", 0.1, momentum=0).momentum == 0
    assert not hasattr(models.optimizer("Adam", 0.1, momentum=0.0, nesterov=False), "momentum")


@pytest.mark.parametrize(
    ("name", "setting", "said", "able"),
    [
        ("Adam", {"momentum": 0.9}, "momentum=0.9", {"SGD", "RMSprop"}),
        ("SGD", {"rho": 0.5}, "rho=0.5", {"RMSprop", "Adadelta"}),
        ("Adam", {"nesterov": True}, "nesterov=true", {"SGD"}),
    ],
)
def test_a_setting_that_the_optimizer_lacks(name, setting, said, able):
    with pytest.raises(UserError) as told:
        models.optimizer(name, 0.1, **setting)
    head, others = str(told.value).split("; those that do are ")
    assert head == f"{said}: {name} takes none"
    named = set(others.split(", "))
    assert able <= named
    assert name not in named
    assert all(next(iter(setting)) in getattr(keras.optimizers, other)().get_config() for other in named)
