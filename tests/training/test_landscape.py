"""Losses on a plane against ``model.evaluate``, the model left as it was, and the picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from mlflow_hp.analysis.surfaces.plane import Landscape, principal_plane, project, random_plane
from mlflow_hp.errors import UserError
from mlflow_hp.history.weight_snapshots import Thinner
from mlflow_hp.plots import figure
from mlflow_hp.plots.landscape import draw_landscape, landscape_info
from mlflow_hp.training.capture.step_layout import tensors_of
from mlflow_hp.training.loss_landscape import landscape
from mlflow_hp.training.plane_losses import losses_on_plane
from tests.helpers.fits import LABELS, X, Y, network, regression
from tests.helpers.needs import needed

POINTS = np.array([[0.0, 0.0], [0.7, -0.2], [-1.0, 1.0]])


def trainable(model):
    return {t.name: np.asarray(v) for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}


def path_of(model, x, y, batches=12):
    """Train on a few batches, and take the snapshots of them."""
    thinner = Thinner(10**6)
    for step in range(batches):
        thinner.add(step, trainable(model))
        model.train_on_batch(x, y)
    return thinner.snapshots(batches, trainable(model))


def evaluated(model, plane, points, x, y, **how):
    """What ``evaluate`` says with the weights set to each point, and back."""
    before, losses = model.get_weights(), []
    named = {t.name: v for t, v in zip(tensors_of(model), model.weights, strict=True)}
    for a, b in points:
        for name, origin in plane.origin.items():
            named[name].assign(origin + a * plane.directions[0][name] + b * plane.directions[1][name])
        losses.append(model.evaluate(x, y, verbose=0, return_dict=True, **how)["loss"])
    model.set_weights(before)
    return losses


def regularised():
    keras.utils.set_random_seed(7)
    layers = [
        keras.layers.Dense(6, "relu", kernel_regularizer=keras.regularizers.L2(0.1)),
        keras.layers.ActivityRegularization(l1=0.05),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("adam", "mse")
    return model


def frozen():
    model = network()
    model.get_layer("hidden").trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def two_outputs():
    keras.utils.set_random_seed(7)
    one, other = keras.Input((3,), name="one"), keras.Input((3,), name="other")
    hidden = keras.layers.Dense(4, "tanh")(keras.layers.Concatenate()([one, other]))
    outputs = {"number": keras.layers.Dense(1)(hidden), "kind": keras.layers.Dense(2, "softmax")(hidden)}
    outputs = {name: keras.layers.Identity(name=name)(output) for name, output in outputs.items()}
    model = keras.Model({"one": one, "other": other}, outputs)
    model.compile(
        "adam", {"number": "mse", "kind": "sparse_categorical_crossentropy"}, loss_weights={"kind": 3.0, "number": 1.0}
    )
    return model


MODELS = {
    "network": (network, X, LABELS),
    "regularised": (regularised, X, Y),
    "frozen": (frozen, X, LABELS),
    "eager": (lambda: network(run_eagerly=True), X, LABELS),
    "two outputs": (two_outputs, {"one": X, "other": -X}, {"number": Y, "kind": LABELS}),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", MODELS)
def test_the_loss_is_that_of_evaluate_and_the_model_stays_as_it_was(name):
    make, x, y = MODELS[name]
    model = make()
    plane = principal_plane([path_of(model, x, y)])
    model.evaluate(x, y, verbose=0)
    state = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.asarray(variable).tobytes() for variable in state]
    found = losses_on_plane(model, plane, POINTS, x, y, batch_size=16)
    after = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    assert [np.asarray(variable).tobytes() for variable in after] == before
    np.testing.assert_allclose(found, evaluated(model, plane, POINTS, x, y, batch_size=16), rtol=2e-6)
    assert len(set(found)) == len(POINTS)


def test_a_model_that_was_never_trained_is_not_changed_either():
    model, trained = network(), network()
    plane = principal_plane([path_of(trained, X, LABELS)])
    before = [np.asarray(variable).tobytes() for variable in model.weights]
    found = losses_on_plane(model, plane, POINTS, X, LABELS)
    assert [np.asarray(variable).tobytes() for variable in model.weights] == before
    np.testing.assert_allclose(found, evaluated(model, plane, POINTS, X, LABELS), rtol=2e-6)


def test_the_ends_of_a_path_have_the_losses_of_their_weights():
    model = regression()
    path = path_of(model, X, Y, batches=2)  # three points: all on the plane
    plane = principal_plane([path])
    found = losses_on_plane(model, plane, project(plane, path), X, Y)
    for row, loss in enumerate(found):
        residual = X @ path.tensors["out/kernel"][row][:, 0] + path.tensors["out/bias"][row] - Y
        assert loss == pytest.approx(np.mean(residual.astype(float) ** 2), rel=2e-6)
    assert found[-1] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=2e-6)


def test_a_subset_is_drawn_by_the_seed_and_points_come_in_any_number():
    model = regression()
    plane = random_plane(trainable(model) | {"out/kernel": np.ones((3, 1))}, 0)
    points = np.random.default_rng(0).normal(size=(70, 2))
    done = []
    found = losses_on_plane(model, plane, points, X, Y, n_samples=10, seed=5, progress=done.append)
    assert sum(done) == 70
    rows = np.random.default_rng(5).choice(37, 10, replace=False)
    kernels = 1 + points @ np.stack([direction["out/kernel"][:, 0] for direction in plane.directions])
    residuals = kernels @ X[rows].T + plane.origin["out/bias"] - Y[rows]
    np.testing.assert_allclose(found, np.mean(residuals**2, axis=1), rtol=1e-5)
    other = losses_on_plane(model, plane, points, X, Y, n_samples=10, seed=6)
    assert not np.allclose(found, other)


def test_what_does_not_fit_is_said():
    model = regression()
    path = path_of(model, X, Y)
    plane = principal_plane([path])
    with pytest.raises(UserError, match=r"hidden/kernel \(none and \(3, 16\)\)"):
        losses_on_plane(network(), plane, POINTS, X, LABELS)
    with pytest.raises(UserError, match="not compiled"):
        losses_on_plane(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), plane, POINTS, X, Y)
    with pytest.raises(UserError, match="no weights yet"):
        losses_on_plane(network(inputs=False), plane, POINTS, X, Y)
    with pytest.raises(UserError, match=r"\[5, 37\] rows"):
        losses_on_plane(model, plane, POINTS, X, Y[:5])
    with pytest.raises(UserError, match="kind='best'"):
        landscape(model, {"a": path}, X, Y, kind="best")
    with pytest.raises(UserError, match="resolution=1"):
        landscape(model, {"a": path}, X, Y, resolution=1)
    with pytest.raises(UserError, match="no snapshots"):
        landscape(model, {}, X, Y)


@pytest.fixture(scope="module")
def two_runs():
    """A landscape of two runs of one architecture, with its model and paths."""
    models = [network(optimizer=keras.optimizers.SGD(rate)) for rate in (0.5, 0.05)]
    paths = {f"learning_rate={i}": path_of(model, X, LABELS, batches=20) for i, model in enumerate(models)}
    found = landscape(models[0], paths, X, LABELS, resolution=21, progress=False)
    return models[0], paths, found


def test_the_landscape_is_the_grid_of_losses_around_the_paths(two_runs):
    model, paths, found = two_runs
    plane = principal_plane(list(paths.values()))
    grid = np.stack(np.meshgrid(found.a, found.b), axis=-1)
    full = losses_on_plane(model, plane, grid.reshape(-1, 2), X, LABELS).reshape(21, 21)
    np.testing.assert_allclose(found.loss, full, rtol=0.05)
    assert found.evaluated < 21 * 21
    for label, path in paths.items():
        np.testing.assert_allclose(found.paths[label], project(plane, path))
        np.testing.assert_array_equal(found.steps[label], path.steps)
    points = np.concatenate(list(found.paths.values()))
    width = np.ptp(points, axis=0)
    np.testing.assert_allclose([found.a[0], found.b[0]], points.min(axis=0) - 0.15 * width)
    np.testing.assert_allclose([found.a[-1], found.b[-1]], points.max(axis=0) + 0.15 * width)
    assert (found.variance_shares, found.kind, found.n_samples) == (plane.variance_shares, "principal", 37)
    assert found.sampling == "all 20 steps"


def test_a_random_plane_reaches_to_one_and_shows_a_bar_in_a_terminal(two_runs, capsys, monkeypatch):
    model, paths, _ = two_runs
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    found = landscape(model, {"a": paths["learning_rate=0"]}, X, LABELS, kind="random", resolution=9, n_samples=30)
    assert found.a[0] <= -1 < 1 <= found.a[-1]
    assert (found.variance_shares, found.n_samples) == (None, 30)
    assert "/81" in capsys.readouterr().err
    np.testing.assert_allclose(found.paths["a"][-1], 0, atol=1e-9)


def test_paths_say_how_they_were_thinned(two_runs):
    model, paths, _ = two_runs
    one, other = (
        path._replace(every=every, n_steps=n)
        for path, every, n in zip(paths.values(), (1, 2), (999, 1200), strict=True)
    )
    said = [landscape(model, dict(enumerate(runs)), X, LABELS, resolution=2, progress=False).sampling
            for runs in ([other], [one, other], [one._replace(every=4)])]  # fmt: skip
    assert said == ["every 2nd of 1,200 steps", "every 1st to 2nd of 999 to 1,200 steps", "every 4th of 999 steps"]


def some(paths=("a",), held: tuple[float, float] | None = (0.72, 0.004), loss=None, n=50):
    a = b = np.linspace(-1, 1, 21)
    loss = 0.1 + a[None, :] ** 2 + b[:, None] ** 2 if loss is None else loss
    line = np.linspace(1, 0, n)[:, None] * [0.8, 0.5]
    drawn = {label: line * (1 - 0.1 * i) for i, label in enumerate(paths)}
    steps = dict.fromkeys(paths, 4 * np.arange(n))
    return Landscape(
        a, b, loss, drawn, steps, "principal" if held else "random", held, "every 4th of 200 steps", 2000, 99
    )


def test_the_numbers_of_the_picture():
    info = landscape_info(some())
    assert info.lowest == pytest.approx(0.1)
    gaps = np.diff(np.log(info.levels - info.lowest))
    assert gaps.min() > 0.4 * gaps.mean()
    assert gaps.max() < 1.6 * gaps.mean()
    assert info.levels[-1] == 2  # the largest loss is 2.1
    assert max(len(f"{level:g}") for level in info.levels) <= 4
    assert info.labels == (
        "1st principal direction (72 % of the path's variance)",
        "2nd principal direction (0.4 %)",
    )
    assert info.title == (
        "path: every 4th of 200 steps · loss over 2,000 samples · 99 of 441 points computed, the others interpolated"
    )
    np.testing.assert_array_equal(info.paths["a"].steps, 4 * np.arange(50))
    assert landscape_info(some(held=None)).labels == ("random direction 1", "random direction 2")
    assert "of the paths' variance" in landscape_info(some("ab")).labels[0]
    assert [landscape_info(some(held=(s, 0.0))).labels[0].split("(")[1][:8] for s in (1.0, 0.9999, 0.992)] == [
        "100 % of",
        "> 99.9 %",
        "99.2 % o",
    ]


def test_a_long_path_is_downsampled_and_one_that_diverges_is_cut():
    info = landscape_info(some(n=20_000))
    assert len(info.paths["a"].a) <= 4002
    assert info.paths["a"].steps[[0, -1]].tolist() == [0, 4 * 19_999]
    short = some()
    short.paths["a"][30:] = np.nan
    drawn = landscape_info(short).paths["a"]
    assert (len(drawn.a), drawn.cut) == (30, True)


CLIFF = np.where(np.arange(441).reshape(21, 21) > 300, np.inf, 1.0 + np.arange(441).reshape(21, 21))
PICTURES = {
    "one": some(),
    "several": some([f"learning_rate={i}" for i in range(9)]),
    "random": some(held=None),
    "start alone": some(n=1),
    "cliff": some(loss=CLIFF),
    "flat": some(loss=np.ones((21, 21))),
    "nothing": some(loss=np.full((21, 21), np.nan)),
    "huge": some(loss=np.geomspace(1e-9, 1e30, 441).reshape(21, 21)),
    "no path": some(()),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_is_drawn(name, tmp_path):
    axes = draw_landscape(landscape_info(PICTURES[name]))
    file = figure.save(axes, tmp_path / "landscape.png")
    assert np.asarray(Image.open(file).convert("L")).std() > 3
    legend = axes.get_legend()
    shown = [text.get_text() for text in legend.get_texts()] if legend else []
    expected = {"several": [f"learning rate {i}" for i in range(9)], "no path": []}
    assert shown == expected.get(name, ["start", "end"])
    notes = [text.get_text() for text in axes.figure.findobj(Text)]
    assert any("grey: not finite" in note for note in notes) == (name in ("cliff", "nothing"))


PROGRAM = """
import json, keras, numpy as np
from mlflow_hp.training.plane_losses import losses_on_plane
from mlflow_hp.analysis.surfaces.plane import random_plane
keras.utils.set_random_seed(0)
x, y = np.random.rand(40, 3).astype("float32"), np.arange(40) % 2
layers = [keras.layers.Dense(4, "relu", kernel_regularizer="l2"), keras.layers.BatchNormalization()]
model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(2, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(x, y, verbose=0)
from mlflow_hp.training.capture.step_layout import tensors_of
weights = {t.name: keras.ops.convert_to_numpy(v) for t, v in zip(tensors_of(model), model.weights) if t.trainable}
before = [keras.ops.convert_to_numpy(v).tobytes() for v in model.variables]
found = losses_on_plane(model, random_plane(weights, 0), np.zeros((1, 2)), x, y)
same = before == [keras.ops.convert_to_numpy(v).tobytes() for v in model.variables]
print(json.dumps([keras.backend.backend(), found[0], model.evaluate(x, y, verbose=0), same]))
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend):
    needed(backend, backend)
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    name, found, expected, same = json.loads(done.stdout.splitlines()[-1])
    assert (name, same) == (backend, True)
    assert found == pytest.approx(expected, rel=1e-5)
