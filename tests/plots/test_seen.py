"""What a reader sees in any picture: a title, named axes, short ticks, no text over another, colours that differ."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from mlflow_hp.analysis.diagnosis import RangeTest
from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.analysis.significance import winner
from mlflow_hp.analysis.smoothing import centred_mean, window_width
from mlflow_hp.analysis.surfaces.beale import BealeSurface
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.history import TrainingHistory
from mlflow_hp.plots import (
    classification,
    figure,
    gradients,
    heatmap,
    panels,
    range_test,
    regression_line,
    score_by_parameter,
    search,
    search_seeds,
    search_space,
    surface,
    ticks,
    training,
)
from mlflow_hp.plots.landscape import LandscapeInfo, PlanePath, draw_landscape
from mlflow_hp.plots.wording import MAX_LINE_LENGTH, in_words
from mlflow_hp.training.settings_text import settings_in_words

RNG = np.random.default_rng(8)
SUBTITLE = "run merry-owl-7 · SGD, learning rate 0.1 throughout, momentum 0.9, batch size 32, 4 epochs, data digits"
MAX_TICK_LETTERS = 7
METHODS = [f"method {number}" for number in range(20)]


def history(low=0.0103, high=2.7):
    steps = 120
    loss = np.geomspace(high, low, steps) * np.exp(RNG.normal(0, 0.2, steps))
    columns = {"step": np.arange(steps), "epoch": np.arange(steps) // 30, "samples": np.full(steps, 32),
               "batch_loss": loss, "running_loss": loss, "learning_rate": np.geomspace(0.137, 1e-5, steps),
               "gradient_norm_of/a": loss, "gradient_norm_of/b": loss / 10}  # fmt: skip
    epochs = {"epoch": np.arange(4), "loss": [2.1, 0.9, 0.2, 0.03], "val_loss": [2.0, 1.1, 0.5, 0.4]}
    meta = {"optimizer": {"name": "SGD", "momentum": 0.9}, "params": {"loss": "mean_squared_error"}}
    return TrainingHistory.from_arrays(columns, epochs, meta=meta)


def found(n, *, grid=False):
    """A search with drawn values, or on a grid."""
    if grid:
        candidates = [{"rate": r, "units": u} for r in (0.001, 0.01, 0.1) for u in (16, 64, 256)]
    else:
        candidates = [
            {"model__learning_rate": float(10 ** RNG.uniform(-5, -1)), "model__dropout": float(RNG.uniform(0, 0.9)),
             "units": int(RNG.integers(4, 512)), "activation": str(RNG.choice(["relu", "tanh"]))}
            for _ in range(n)
        ]  # fmt: skip
    scores = 0.9 + 0.0123 * RNG.normal(size=(len(candidates), 1)) + 0.004 * RNG.normal(size=(len(candidates), 3))
    columns = {f"split{fold}_test_score": column for fold, column in enumerate(scores.T)}
    return from_cv_results({"params": candidates, "mean_fit_time": RNG.uniform(0.5, 9, len(candidates)), **columns})


def range_info():
    rate = np.geomspace(1e-5, 10, 200)
    loss = 2.3 - np.exp(-((np.log10(rate) + 1) ** 2))
    test = RangeTest(rate, loss + RNG.normal(0, 0.05, 200), loss, 130, 160, 180)
    return range_test.range_test_info(test, 3.1)


def paths_info(**options):
    turns = np.linspace(0, 1, 40)
    paths = {
        label: (4 - turns * (1 + 0.05 * index), 4 - 3.5 * turns + np.sin(9 * turns + index))
        for index, label in enumerate(METHODS)
    }
    window = ((-4.5, 4.5), (-4.5, 4.5))
    return surface.surface_info(BealeSurface(), paths, ("x", "y"), window=window, best="minimum, f", **options)


def landscape_info():
    a, b = np.linspace(-1, 10, 30), np.linspace(-2, 2, 30)
    loss = 0.0261 + 0.01 * a[None, :] ** 2 + 0.2 * b[:, None] ** 2
    levels = ticks.rounded(0.0261 + np.geomspace(0.01, 1.7, 16))
    path = PlanePath(np.arange(30), a[::-1], b[::-1], cut=False)
    note = "path: all 336 steps · loss over 1,149 samples · 365 of 2,601 points computed, the others interpolated"
    labels = ("1st principal direction (87 %)", "2nd principal direction (8 %)")
    return LandscapeInfo(a, b, loss, levels, 0.0261, {"path": path}, labels, note)


def cost_surface():
    x = np.linspace(18, 42, 60)
    steps = np.linspace(0, 1, 50)
    cost = LinearRegressionSurface(x, 10 * x - 120 + 60 * RNG.normal(size=60))
    return surface.surface_info(cost, {"path": (8 * steps, -90 * steps)}, ("weight w of bmi", "bias b (target)"))


def drawn_search(number, *, grid=False):
    results = found(number, grid=grid)
    best = winner(results)
    yield search.draw_scores(search.scores_info(results, best))
    yield search.draw_folds(search.folds_info(results))
    yield search.draw_time(search.time_info(results, best))
    seeds = results.fold_scores[..., None] + 0.01 * RNG.normal(size=(*results.fold_scores.shape, 4))
    yield search_seeds.draw_seeds(search_seeds.seeds_info(dataclasses.replace(results, seed_scores=seeds)))
    yield search_space.draw_parallel(search_space.parallel_info(results))
    yield search_space.draw_parameter(search_space.parameter_info(results, results.parameters[0]))
    yield heatmap.draw_heatmap(heatmap.heatmap_info(results, *results.parameters[:2]))
    yield score_by_parameter.draw_parameters(score_by_parameter.parameters_info(results, results.parameters))


PICTURES = {
    "loss by batch": lambda: [training.draw_curves(training.loss_by_batch(history()))],
    "loss by epoch": lambda: [training.draw_curves(training.metric_by_epoch(history()))],
    "loss of a short span": lambda: [training.draw_curves(training.loss_by_batch(history(0.31, 0.34)))],
    "large loss": lambda: [training.draw_curves(training.loss_by_batch(history(3_870, 48_213)))],
    "learning rate": lambda: [training.draw_curves(training.learning_rate_by_step(history()))],
    "weight": lambda: [training.draw_curves(training.weights_by_step(RNG.normal(size=50), "weight", {"best": 3.0}))],
    "gradient norms": lambda: [gradients.draw_gradient_norms(gradients.gradient_norms_by_step(history()))],
    "panels": lambda: [
        panels.draw_panels(
            panels.panels_info({f"rate={i}": training.loss_by_batch(history()) for i in range(5)}, "loss by batch")
        )
    ],
    "range test": lambda: [range_test.draw_range_test(range_info())],
    "regression": lambda: [
        regression_line.draw_fit(
            regression_line.FitInfo(np.arange(9.0), np.arange(9.0), {"fit": (1, 0)}, ("bmi", "target"))
        )
    ],
    "confusion": lambda: [
        classification.draw_confusion(classification.confusion_info(np.arange(10), np.arange(10), list("abcdefghij")))
    ],
    "surface": lambda: [surface.draw_surface(cost_surface())],
    "twenty paths": lambda: [surface.draw_surface(paths_info())],
    "families": lambda: [
        surface.draw_surface(paths_info(groups={label: f"family {i % 4}" for i, label in enumerate(METHODS)}))
    ],
    "landscape": lambda: [draw_landscape(landscape_info())],
    "random search": lambda: drawn_search(12),
    "small random search": lambda: drawn_search(4),
    "large random search": lambda: drawn_search(100),
    "grid search": lambda: drawn_search(9, grid=True),
}


def laid_out(axes):
    """Lay a picture out as it is saved, and return its figure and renderer."""
    figure.add_subtitle(axes, SUBTITLE)
    canvas = FigureCanvasAgg(axes.figure)
    with figure.literal_text(axes.figure):
        canvas.draw()
    return axes.figure, canvas.get_renderer()


def shown_ticks(axis):
    """Labels of the major ticks that lie on the axis and are visible."""
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    shown = [tick for tick in axis.get_major_ticks() if low - margin <= tick.get_loc() <= high + margin]
    return [text for tick in shown for text in (tick.label1, tick.label2) if text.get_visible() and text.get_text()]


def frame_texts(whole):
    """Texts around the drawings: header, titles of panels, labels of axes and of ticks."""
    title = whole.get_suptitle()
    texts = [text for text in whole.get_children() if isinstance(text, Text) and text.get_text() == title]
    for axes in whole.axes:
        titles = [axes.get_title(loc) for loc in ("left", "center", "right")]
        texts += [text for text in axes.get_children() if isinstance(text, Text) and text.get_text() in titles]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            texts += [axis.label, *shown_ticks(axis)]
    texts += whole.texts
    return [text for text in dict.fromkeys(texts) if text.get_text().strip() and text.get_visible()]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", PICTURES)
def test_each_picture_is_named_readable_and_free_of_overlaps(kind):
    for axes in PICTURES[kind]():
        whole, renderer = laid_out(axes)
        assert whole.get_suptitle().strip()
        assert any("merry-owl-7" in text.get_text() for text in whole.texts)
        drawn = [each for each in whole.axes if each.axison]
        is_parallel = "parameters" in whole.get_suptitle()  # its axes are named at their tops
        for position in ("x",) if is_parallel else ("x", "y"):
            axis_of = [getattr(each, f"{position}axis") for each in drawn]
            assert any(axis.label.get_text() or shown_ticks(axis) for axis in axis_of), whole.get_suptitle()
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in frame_texts(whole)]
        for (first, box), (second, other) in itertools.combinations(boxes, 2):
            assert not really_overlap(box, other), f"{first!r} is over {second!r}"
        edge = whole.bbox
        for name, box in boxes:
            outside = max(edge.x0 - box.x0, box.x1 - edge.x1, edge.y0 - box.y0, box.y1 - edge.y1)
            assert outside < 1, f"{name!r} is cut off"


def really_overlap(box, other, slack=1.0):
    return (
        min(box.x1, other.x1) - max(box.x0, other.x0) > slack and min(box.y1, other.y1) - max(box.y0, other.y0) > slack
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", [kind for kind in PICTURES if "search" not in kind])
def test_ticks_are_short(kind):
    for axes in PICTURES[kind]():
        whole, _ = laid_out(axes)
        for each in whole.axes:
            for axis in (each.xaxis, each.yaxis):
                for text in shown_ticks(axis):
                    word = text.get_text()
                    is_name = not any(letter.isdigit() for letter in word)
                    assert is_name or word.startswith("$") or len(word) <= MAX_TICK_LETTERS, word


def test_a_line_of_a_subtitle_is_as_long_as_the_figure_is_wide(tmp_path):
    axes = figure.new_axes(width=16)
    figure.add_subtitle(axes, f"{SUBTITLE}, {SUBTITLE}")
    figure.save(axes, tmp_path / "wide.png")
    (small,) = [text for text in figure.figure_of(axes).texts if text.get_gid() == "subtitle"]
    assert small.get_text().replace("\n", " ") == f"{SUBTITLE}, {SUBTITLE}"
    assert max(map(len, small.get_text().split("\n"))) > 160


def test_ticks_of_drawn_values_are_round():
    info = search_space.parallel_info(found(12))
    labels = [label for axis in info.axes if axis.name != "activation" for label in axis.ticks]
    cells = heatmap.heatmap_info(found(12), "model__learning_rate", "model__dropout")
    for label in [*labels, *cells.x.labels, *cells.y.labels]:
        digits = label.split("e")[0].replace(",", "").replace(".", "").strip("0")
        assert len(digits) <= 3, label


@pytest.mark.parametrize(("low", "high"), [(1.3e-5, 0.74), (0.0031, 0.0047), (2.0, 30.0), (1e-12, 1e9)])
def test_round_values_on_a_logarithmic_axis(low, high):
    values = ticks.round_values(low, high, log=True)
    assert 2 <= len(values) <= 6
    assert low * (1 - 1e-9) <= values[0] < values[-1] <= high * (1 + 1e-9)
    edges = ticks.round_edges(low, high, 8, log=True)
    assert edges[0] <= low < high <= edges[-1]
    assert 2 <= len(edges) <= 9


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (25_000, "25,000"), (0.01, "0.01"), (2e-7, "2e-7"), (-3.5, "-3.5"), (1e9, "1e9")]
)
def test_texts_of_ticks(value, text):
    assert ticks.tick_text(value) == text


def test_rounded_levels_keep_their_order():
    values = 3828.3 + np.geomspace(0.013, 25_000, 16)
    rounded = ticks.rounded(values)
    assert (np.diff(rounded) > 0).all()
    gaps = np.diff(values)
    assert (np.abs(rounded - values)[1:-1] <= 0.4 * np.minimum(gaps[1:], gaps[:-1]) * (1 + 1e-9)).all()


def test_the_smoothed_loss_is_the_mean_of_its_window():
    loss = RNG.normal(size=120)
    loss[50] = np.nan
    info = training.loss_by_batch(
        TrainingHistory.from_arrays({"step": np.arange(120), "batch_loss": loss, "running_loss": loss})
    )
    width = window_width(120)
    smoothed = info.curves[1]
    assert f"{width} batches" in smoothed.label
    for at in (0, 3, 49, 60, 119):
        window = loss[max(0, at - width // 2) : at + width // 2 + 1]
        assert smoothed.y[at] == pytest.approx(np.nanmean(window))
    assert np.isnan(smoothed.y[50])
    assert "running" not in " ".join(curve.label for curve in info.curves)


def test_a_falling_loss_is_smoothed_to_a_falling_one():
    loss = np.geomspace(10, 0.1, 400)
    assert (np.diff(centred_mean(loss, window_width(400))) < 0).all()


def test_the_validation_loss_stands_at_the_ends_of_epochs():
    info = training.loss_by_batch(history())
    validation = info.curves[-1]
    assert validation.x.tolist() == [29, 59, 89, 119]
    assert validation.y.tolist() == [2.0, 1.1, 0.5, 0.4]


def test_training_and_validation_are_on_one_scale():
    steep = training.curves_info([training.Curve(np.arange(3), np.array([1, 0.1, 1e-4]), "a")], "epoch", "loss")
    flat = training.curves_info([training.Curve(np.arange(3), np.array([1, 0.9, 0.8]), "a")], "epoch", "val loss")
    axes = [training.draw_curves(info) for info in training.on_one_scale([steep, flat])]
    assert {each.get_yscale() for each in axes} == {"log"}
    assert axes[0].get_ylim() == pytest.approx(axes[1].get_ylim())
    alone = [training.draw_curves(info) for info in training.on_one_scale([flat])]
    assert alone[0].get_yscale() == "linear"


def test_panels_share_their_axes():
    infos = {name: training.loss_by_batch(history(low)) for name, low in (("a", 0.01), ("b", 1.0))}
    whole = panels.draw_panels(panels.panels_info(infos, "loss")).figure
    assert len({each.get_ylim() for each in whole.axes}) == 1
    assert len({each.get_xlim() for each in whole.axes}) == 1


def delta_e(first, second):
    """Distance of two colours, CIE 1976: sRGB to Lab, white point D65."""

    def lab(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
        ratio = xyz / [0.9505, 1.0, 1.089]
        f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    return float(np.linalg.norm(lab(first) - lab(second)))


@pytest.mark.parametrize("groups", [None, {label: f"family {i % 4}" for i, label in enumerate(METHODS)}])
def test_twenty_paths_are_told_apart(groups):
    """Two lines of one style differ in colour by 25 (2.3 is just noticeable), in each picture and panel."""
    whole = surface.draw_surface(paths_info(groups=groups)).figure
    n = 0
    for axes in whole.axes:
        lines = [line for line in axes.lines if line.get_label().startswith("method")]
        n += len(lines)
        for first, second in itertools.combinations(lines, 2):
            if first.get_linestyle() == second.get_linestyle():
                assert delta_e(first.get_color(), second.get_color()) > 25
    assert n == 20


def test_a_random_search_gets_no_heatmap_of_scattered_cells():
    few = found(6)
    info = heatmap.heatmap_info(few, "model__learning_rate", "units")
    assert not heatmap.is_filled(info)
    assert heatmap.is_filled(heatmap.heatmap_info(found(9, grid=True), "rate", "units"))


def test_error_bars_say_what_they_are():
    results = found(9, grid=True)
    axes = search.draw_scores(search.scores_info(results, winner(results)))
    assert axes.get_xlabel() == "score: mean ± standard deviation over 3 folds"
    labels = [text.get_text() for text in search_space.draw_parameter(
        search_space.parameter_info(results, "rate")).get_legend().get_texts()]  # fmt: skip
    assert "± one standard deviation over the 3 folds" in labels
    whole = score_by_parameter.draw_parameters(score_by_parameter.parameters_info(results, results.parameters)).figure
    assert any("mean ± standard deviation over 3 folds" in text.get_text() for text in whole.texts)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("learning_rate=0.1 batch_size=8", "learning rate 0.1, batch size 8"),
        ("1: standardize=true, learning_rate=1.3 (it hovers)", "1: standardize true, learning rate 1.3 (it hovers)"),
        ("svc__C=1", "svc C 1"),
        ("Adam", "Adam"),
    ],
)
def test_labels_in_words(label, words):
    assert in_words(label) == words


def test_settings_in_words():
    text = settings_in_words(history())
    assert text == "SGD, learning rate 0.137 first, 1e-05 last, momentum 0.9, batch size 32, 4 epochs"


def test_small_print_that_fits_is_not_cut():
    words = " ".join(f"setting_{number:02} {number}" for number in range(14))  # in one line of a wide figure
    axes = figure.new_axes(14.0, 5.0)
    figure.finish(axes, "wide")
    figure.add_subtitle(axes, words)
    with figure.literal_text(axes.figure):
        drawn = [" ".join(text.get_text().split()) for text in axes.figure.texts]
    assert len(words) > MAX_LINE_LENGTH
    assert drawn == ["Wide", words]
