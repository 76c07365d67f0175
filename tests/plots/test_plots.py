"""The numbers of the pictures by equality, their drawing by smoke."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mlflow_hp.analysis.surfaces.beale import BealeSurface
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.history import TrainingHistory
from mlflow_hp.plots import figure, regression_line, surface, surface_animation, training
from mlflow_hp.plots.curves import MAX_POINTS as MAX_CURVE_POINTS
from mlflow_hp.plots.descent_paths import MAX_POINTS

RNG = np.random.default_rng(2)
X = RNG.normal(26, 4, 100)
SURFACE = LinearRegressionSurface(X, 3 * X + RNG.normal(size=100))


def path(n=50, start=(0.0, 0.0)):
    """A straight line towards the minimum."""
    share = np.linspace(0, 0.9, n)
    return tuple(s + share * (m - s) for s, m in zip(start, SURFACE.minimum[:2], strict=True))


def drawn(axes, tmp_path):
    file = figure.save(axes, tmp_path / "deep" / "picture.png")
    pixels = np.asarray(Image.open(file).convert("L"))
    assert pixels.shape[0] > 300
    assert pixels.std() > 5
    return file


def texts(axes):
    legend = axes.get_legend()
    return [text.get_text() for text in legend.get_texts()] if legend else []


def assert_about_geometric(levels):
    """Assert that levels are geometrically spaced, but for rounding by 0.4 of a gap on both sides."""
    ratios = np.diff(np.log(levels))
    assert (ratios > 0).all()
    evenly = (np.log(levels[-1]) - np.log(levels[0])) / (len(levels) - 1)
    away = np.log(levels) - np.log(levels[0]) - evenly * np.arange(len(levels))
    assert np.abs(away).max() < evenly


def test_the_window_holds_path_and_minimum():
    w, b = path()
    info = surface.surface_info(SURFACE, {"a": (w, b)})
    for values, axis, best in ((w, info.w, SURFACE.minimum.w), (b, info.b, SURFACE.minimum.b)):
        low, high = min(values.min(), best), max(values.max(), best)
        assert axis[0] == pytest.approx(low - 0.15 * (high - low))
        assert axis[-1] == pytest.approx(high + 0.15 * (high - low))
    np.testing.assert_array_equal(info.cost, SURFACE.cost(info.w[None, :], info.b[:, None]))
    assert_about_geometric(info.levels - SURFACE.minimum.cost)
    assert info.levels[-1] > SURFACE.cost(w, b).max()
    assert not info.paths["a"].cut


def test_a_path_that_diverges_is_cut_where_it_leaves():
    w, b = path(40)
    w, b = np.append(w, [1e30, np.inf, np.nan]), np.append(b, [1e30, np.nan, 0.0])
    info = surface.surface_info(SURFACE, {"a": (w, b)})
    assert info.paths["a"].steps.tolist() == list(range(41))  # the last is on its way out
    assert info.w[-1] < info.paths["a"].w[-1] < 1e6
    assert info.paths["a"].cut
    assert np.isfinite(info.cost).all()


def test_a_long_path_is_downsampled_and_keeps_its_ends():
    info = surface.surface_info(SURFACE, {"a": path(20_000)})
    steps = info.paths["a"].steps
    assert len(steps) <= MAX_POINTS + 2
    assert steps[[0, -1]].tolist() == [0, 19_999]


@pytest.mark.parametrize(
    "paths",
    [
        {"a": path()},
        {"a": path(20_000)},
        {"a": path(1)},
        {"a": SURFACE.minimum[:2]},
        {"a": (np.full(9, np.nan), np.full(9, np.nan))},
        {"a": (np.geomspace(1, 1e30, 50), np.geomspace(1, 1e30, 50))},
        {f"learning_rate={i}": path(20, (i, -i)) for i in range(3)},
        {f"learning_rate={i} batch_size={i}": path(20, (i, -i)) for i in range(30)},
    ],
    ids=["path", "long", "start only", "at minimum", "nan", "diverging", "three", "thirty"],
)
def test_surface_is_drawn(paths, tmp_path):
    paths = {label: tuple(np.atleast_1d(v) for v in wb) for label, wb in paths.items()}
    axes = surface.draw_surface(surface.surface_info(SURFACE, paths, ("weight", "bias")))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("weight", "bias")
    labels = texts(axes)
    assert labels[0].startswith("least squares")
    leaves = any(not np.isfinite(w[-1]) or w[-1] > 1e9 for w, _ in paths.values())
    ends = {"start"} if leaves else {"start", "end"}
    words = {label.replace("_", " ").replace(" batch", ", batch").replace("=", " ") for label in paths}
    assert set(labels[1:]) == (ends if len(paths) == 1 else words)
    drawn(axes, tmp_path)


def test_the_animation(tmp_path):
    info = surface.surface_info(SURFACE, {"a": path(500)})
    surface_animation.animate_surface(info, tmp_path / "a.gif", frames=12)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 12
        gif.seek(11)
        assert gif.info["duration"] == 2000
    assert (tmp_path / "a.gif").stat().st_size < 2e6


@pytest.mark.parametrize("paths", [{"a": path(9)}, {"a": path(9), "b": path(5)}])
def test_an_animation_says_what_it_shows(monkeypatch, paths, tmp_path):
    drawn = []
    monkeypatch.setattr(surface_animation, "write_gif", lambda axes, *_: drawn.append(axes))
    info = surface.surface_info(SURFACE, paths)
    surface_animation.animate_surface(info, tmp_path / "a.gif", subtitle="run one · SGD")
    (axes,) = drawn
    assert {text.get_text() for text in axes.figure.texts} == {"Descent on the cost surface", "run one · SGD"}
    assert texts(axes)[0].startswith("least squares")


def test_the_end_at_the_minimum_is_drawn_over_it():
    best = SURFACE.minimum
    info = surface.surface_info(SURFACE, {"a": (np.array([0, best.w]), np.array([0, best.b]))})
    markers = {line.get_marker(): line.get_zorder() for line in surface.draw_surface(info).lines}
    assert markers["o"] > markers["*"]


def test_the_animation_of_several_paths(tmp_path):
    info = surface.surface_info(SURFACE, {"short": path(5), "long": path(2001, (1, 9)), "start": path(1)})
    surface_animation.animate_surface(info, tmp_path / "a.gif", frames=30)
    with Image.open(tmp_path / "a.gif") as gif:
        assert 15 < gif.n_frames <= 30
        frames = []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB"), float))
    assert all(np.abs(a - b).max() > 50 for a, b in itertools.pairwise(frames))
    assert all((a == b).all(axis=-1).mean() > 0.9 for a, b in itertools.pairwise(frames))  # no flicker
    assert (tmp_path / "a.gif").stat().st_size < 2e6


def test_the_frames_of_a_long_path_are_more_and_more_apart(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        surface_animation, "write_gif", lambda axes, moves, frames, *_: drawn.append(np.asarray(frames))
    )
    info = surface.surface_info(SURFACE, {"short": path(5), "long": path(2001, (1, 9)), "start": path(1)})
    surface_animation.animate_surface(info, tmp_path / "a.gif", frames=30)
    (reached,) = drawn
    assert reached[[0, 1, -1]].tolist() == [0, 1, 2000]
    assert np.diff(reached, 2)[5:].mean() > 0


BEALE = BealeSurface()
WINDOW = ((-4.5, 4.5), (-4.0, 4.0))
ITERATIONS = surface.StepNumbering("iteration", 0)


def on_beale(**paths):
    paths = {label: tuple(np.array(points, float).T) for label, points in paths.items()}
    return surface.surface_info(
        BEALE, paths, ("x", "y"), window=WINDOW, best="minimum (3, 0.5), f", numbering=ITERATIONS
    )  # fmt: skip


def test_a_given_window_is_kept_and_its_levels_show_the_valley():
    info = on_beale(a=[(4, 4), (50, -60), (2, 1)])
    assert (info.w[[0, -1]].tolist(), info.b[[0, -1]].tolist()) == ([-4.5, 4.5], [-4, 4])
    assert info.paths["a"].w.tolist() == [4, 50, 2]  # out and back
    assert not info.paths["a"].cut
    assert_about_geometric(info.levels)
    assert info.levels[0] < 0.3 < BEALE.cost(-4.5, 1) < info.levels[8]
    assert info.levels[-1] == pytest.approx(info.cost.max(), rel=0.5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", [(50, 1), (1e200, 1e200), (np.nan, 1), (np.inf, 1)])
def test_a_path_that_ends_outside_a_given_window(end, tmp_path):
    info = on_beale(a=[(4, 4), (3, 1), end])
    assert info.paths["a"].cut
    axes = surface.draw_surface(info)
    assert axes.get_title().startswith("the path leaves the plot at iteration")
    assert texts(axes) == ["minimum (3, 0.5), f = 0", "start"]
    drawn(axes, tmp_path)
    both = on_beale(a=[(4, 4), end], b=[(4, 4), (3, 0.5)])
    axes = surface.draw_surface(both)
    assert axes.get_title() == "1 of 2 paths end outside the plot"
    drawn(axes, tmp_path)
    surface_animation.animate_surface(both, tmp_path / "a.gif", frames=5)


def test_when_a_path_leaves_for_good():
    axes = surface.draw_surface(on_beale(a=[(4, 4), (9, 1), (3, 1), (9, 1), (9, 2), (9, 3)]))
    assert axes.get_title() == "the path leaves the plot at iteration 3"


def test_how_points_are_counted():
    assert [ITERATIONS.describe(i) for i in (0, 7)] == ["at iteration 0", "at iteration 7"]
    assert [surface.StepNumbering().describe(i) for i in (0, 1)] == ["before the first step", "after step 0"]


def history():
    steps = {"step": np.arange(20), "batch_loss": np.linspace(9, 1, 20), "running_loss": np.linspace(9, 2, 20),
             "learning_rate": np.repeat([0.1, 0.01], 10)}  # fmt: skip
    epochs = {"epoch": [0, 1], "loss": [3.0, 2.0], "val_loss": [4.0, np.nan], "mae": [1.0, 1.0]}
    return TrainingHistory.from_arrays(steps, epochs)


def test_curves_of_a_history(tmp_path):
    info = training.loss_by_batch(history())
    assert [curve.label for curve in info.curves] == ["each batch", "mean of the 5 batches around"]
    np.testing.assert_array_equal(info.curves[0].y, history().steps["batch_loss"])
    np.testing.assert_allclose(info.curves[1].y[2:-2], history().steps["batch_loss"][2:-2])  # of a line: itself
    by_epoch = training.metric_by_epoch(history())
    assert [curve.y.tolist()[0] for curve in by_epoch.curves] == [3.0, 4.0]
    assert by_epoch.first_not_finite == 1
    assert len(training.metric_by_epoch(history(), "mae").curves) == 1
    rate = training.learning_rate_by_step(history())
    assert rate.curves[0].style == "steps"
    for each in (info, by_epoch, rate):
        drawn(training.draw_curves(each), tmp_path)


def test_weights_begin_before_the_first_step(tmp_path):
    info = training.weights_by_step(np.array([0.5, 0.6, 0.7]), "weight", {"least squares": 1.0})
    assert info.curves[0].x.tolist() == [-1, 0, 1]
    axes = training.draw_curves(info)
    assert texts(axes) == ["weight", "least squares"]
    assert axes.lines[1].get_ydata()[0] == 1.0
    drawn(axes, tmp_path)


def test_downsampling_keeps_spikes():
    y = np.zeros(100_000)
    y[54_321], y[77_777] = 9.0, -9.0
    info = training.curves_info([training.Curve(np.arange(100_000), y, "loss")], "step", "loss")
    (curve,) = info.curves
    assert len(curve.x) <= MAX_CURVE_POINTS + 2
    assert {54_321, 77_777, 0, 99_999} <= set(curve.x.tolist())
    assert (np.diff(curve.x) > 0).all()


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1, 150], "log"), ([1, 50], "linear"), ([0, 1000], "linear"), ([-1, 1000], "linear"), ([np.nan, 1], "linear")],
)
def test_a_logarithmic_axis_where_it_helps(values, scale):
    curve = training.Curve(np.arange(2), np.array(values, float), "loss")
    assert training.draw_curves(training.curves_info([curve], "step", "loss")).get_yscale() == scale


def test_what_is_not_finite_is_marked(tmp_path):
    y = np.ones(50)
    y[37:] = np.nan
    axes = training.draw_curves(training.curves_info([training.Curve(np.arange(50), y, "loss")], "step", "loss"))
    assert axes.get_title() == "not finite from step 37"
    drawn(axes, tmp_path)
    nothing = training.Curve(np.arange(5), np.full(5, np.nan), "loss")
    figure.save(training.draw_curves(training.curves_info([nothing], "step", "loss")), tmp_path / "nothing.png")


def test_many_curves_have_their_legend_outside(tmp_path):
    curves = [training.Curve(np.arange(9), RNG.random(9), f"learning_rate={i}") for i in range(12)]
    axes = training.draw_curves(training.curves_info(curves, "epoch", "loss"))
    drawn(axes, tmp_path)
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1


def test_the_fitted_line(tmp_path):
    lines = {"after training": (2.0, 1.0), "least squares": (np.nan, 1.0)}
    info = regression_line.FitInfo(X, 3 * X, lines, ("bmi", "target"))
    axes = regression_line.draw_fit(info)
    assert texts(axes) == ["data", "after training"]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 2 * np.array([X.min(), X.max()]) + 1)
    drawn(axes, tmp_path)


def test_drawing_leaves_no_global_state():
    program = (
        "import sys, numpy as np\nfrom mlflow_hp.plots import training\n"
        "assert 'matplotlib' not in sys.modules\n"
        "training.draw_curves(training.curves_info([training.Curve(np.arange(3), np.ones(3), 'a')], 'step', 'a'))\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_figure_of_the_users_keeps_its_titles():
    from matplotlib.figure import Figure

    whole = Figure()
    left, right = whole.subfigures(1, 2)
    info = training.curves_info([training.Curve(np.arange(3), np.ones(3), "a")], "step (-1: before the first)", "loss")
    for axes in (left.subplots(), right.subplots()):
        assert training.draw_curves(info, axes) is axes
    assert [each.get_suptitle() for each in (whole, left, right)] == ["", "", ""]
    assert training.draw_curves(info).figure.get_suptitle() == "Loss by step"
