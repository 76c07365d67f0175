"""Pictures of searches: their numbers by equality, their drawing by smoke over all sizes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.analysis.significance import winner
from mlflow_hp.plots import figure, heatmap, search, search_space, search_style

RNG = np.random.default_rng(3)


def results(candidates, scores, seconds=None):
    n = len(candidates)
    held = {f"split{fold}_test_score": column for fold, column in enumerate(np.asarray(scores, float).T)}
    seconds = np.ones(n) if seconds is None else np.asarray(seconds, float)
    return from_cv_results({"params": candidates, "mean_fit_time": seconds, "mean_score_time": seconds} | held)


def many(n, n_parameters, failed=0, scale=1.0):
    """A random search with parameters of each kind, long names, and scores of which some are far below."""
    draw = {
        "classifier__learning_rate": lambda: float(10 ** RNG.uniform(-5, 0)),
        "classifier__activation_of_the_hidden_layers": lambda: str(RNG.choice(["relu", "tanh", "a_very_long_" * 4])),
        "units": lambda: int(RNG.integers(4, 512)),
        "$price$": lambda: RNG.choice([None, 3, 5]),
        "dropout": lambda: float(RNG.uniform(0, 0.9)),
        "scaler": lambda: bool(RNG.integers(2)),
    }
    candidates = [{name: value() for name, value in list(draw.items())[:n_parameters]} for _ in range(n)]
    scores = scale * (0.9 + 0.05 * RNG.normal(size=(n, 1)) + 0.01 * RNG.normal(size=(n, 3)))
    scores[: max(1, n // 20)] -= 50 * abs(scale)
    scores[n - failed :] = np.nan
    return results(candidates, scores, RNG.uniform(0.01, 20, n))


def drawn(axes, tmp_path):
    file = figure.save(axes, tmp_path / "picture.png")
    pixels = np.asarray(Image.open(file).convert("L"))
    assert pixels.std() > 5
    assert max(pixels.shape) < 2600
    assert min(pixels.shape) > 200


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("n", "n_parameters", "failed", "scale"),
    [(2, 1, 0, 1), (2, 2, 1, 1), (9, 3, 2, -3e3), (40, 4, 0, -1e6), (500, 6, 50, 1)],
)
def test_each_picture_is_drawn(n, n_parameters, failed, scale, tmp_path):
    found = many(n, n_parameters, failed, scale)
    best = winner(found)
    drawn(search.draw_scores(search.scores_info(found, best)), tmp_path)
    drawn(search.draw_time(search.time_info(found, best)), tmp_path)
    drawn(search.draw_folds(search.folds_info(found)), tmp_path)
    drawn(search_space.draw_parallel(search_space.parallel_info(found)), tmp_path)
    names = found.parameters
    drawn(search_space.draw_parameter(search_space.parameter_info(found, names[0])), tmp_path)
    for other in names[1:3]:
        drawn(heatmap.draw_heatmap(heatmap.heatmap_info(found, other, names[0])), tmp_path)


def test_all_failed(tmp_path):
    found = many(5, 2, failed=5)
    drawn(search.draw_folds(search.folds_info(found)), tmp_path)
    drawn(search_space.draw_parallel(search_space.parallel_info(found)), tmp_path)
    drawn(heatmap.draw_heatmap(heatmap.heatmap_info(found, *found.parameters)), tmp_path)


def test_an_axes_of_ones_own_is_used():
    found = many(9, 2)
    axes = figure.new_axes()
    assert search.draw_scores(search.scores_info(found, winner(found)), axes) is axes
    assert search_space.draw_parallel(search_space.parallel_info(found), axes) is axes


def test_the_heatmap_averages_over_the_others():
    candidates = [{"a": a, "b": b, "c": c} for a in (1, 2) for b in ("x", "y", "z") for c in (0, 1)]
    scores = np.arange(12.0)[:, None] + [0.0, 1.0]
    scores[0] = np.nan  # a=1, b=x, c=0
    scores[10:] = np.nan  # a=2, b=z
    info = heatmap.heatmap_info(results(candidates, scores), "b", "a")
    np.testing.assert_array_equal(info.score, [[1.5, 3.0, 5.0], [7.0, 9.0, np.nan]])
    assert (info.counts == 2).all()
    assert info.best == (1, 1)
    assert info.x.labels == ["x", "y", "z"]
    assert info.y.labels == ["1", "2"]
    assert "(over c): 1 to 2" in info.title
    assert "failed" in info.title
    written = [text.get_text() for text in heatmap.draw_heatmap(info).texts]
    assert sorted(written) == sorted(["1.50", "3.00", "5.00", "7.00", "9.00", heatmap.CROSS])


def test_numbers_of_many_values_are_drawn_in_intervals():
    rates = np.geomspace(1e-4, 1e2, 30)
    info = heatmap.heatmap_info(results([{"r": r, "k": k} for r in rates for k in (1, 2)], RNG.normal(size=(60, 3))),
                                "r", "k")  # fmt: skip
    assert info.x.n == 6
    assert info.x.labels == ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]
    np.testing.assert_array_equal(info.x.ticks, np.arange(7) - 0.5)
    assert info.counts.sum() == 60
    assert (info.counts == 5).all()


def test_scores_in_order_and_who_is_left_out():
    base = np.array([0.0, 0.01, -0.01])
    scores = [0.5 + base, [np.nan, 1, 1], 0.9 + base, 0.897 - base, -99.0 + base]
    found = results([{"a": i} for i in range(5)], scores)
    info = search.scores_info(found, winner(found))
    assert info.labels == ["a=2", "a=3", "a=0", "a=4"]
    np.testing.assert_allclose(info.mean, [0.9, 0.897, 0.5, -99])
    assert info.group.tolist() == ["best", "tied", "other", "other"]
    assert "1 not significantly worse than the best" in info.title
    assert "1 with a failed fold" in info.title


def test_long_names_become_columns_below_their_parameters():
    found = many(9, 3)
    labels, header = search_style.row_labels(found, np.arange(9))
    assert header.split()[0].startswith("classifier__")
    assert len({len(row) for row in (header, *labels)}) == 1  # equal width, so that columns are aligned
    for row, candidate in zip(labels, found.candidates, strict=True):
        assert str(candidate["units"]) in row
    axes = search.draw_folds(search.folds_info(many(9, 3)))
    ticks = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True))
    assert ticks[-1] == search.folds_info(many(9, 3)).header or ticks[-1].split()[-1] == "units"


def test_short_names_are_in_words():
    found = results([{"learning_rate": r, "C": c} for r in (0.1, 1.0) for c in (1, 2)], RNG.normal(size=(4, 3)))
    axes = search.draw_scores(search.scores_info(found, winner(found)))
    assert "learning rate 0.1, C 2" in [text.get_text() for text in axes.get_yticklabels()]


def test_the_pareto_front_is_who_none_beats():
    seconds, score = RNG.uniform(size=200), RNG.uniform(size=200)
    front = search.pareto_front(seconds, score)
    beaten = [
        any((seconds <= s) & (score >= v) & ((seconds < s) | (score > v))) for s, v in zip(seconds, score, strict=True)
    ]
    assert sorted(front) == np.flatnonzero(~np.array(beaten)).tolist()
    assert (np.diff(seconds[front]) > 0).all()
    assert search.pareto_front(np.zeros(0), np.zeros(0)).size == 0
    assert search.pareto_front(np.ones(2), np.full(2, -np.inf)).size == 0


def test_time_marks_best_and_cheapest():
    scores = np.array([[0.90, 0.92, 0.94], [0.91, 0.91, 0.93], [0.3, 0.31, 0.33], [np.nan] * 3])
    found = results([{"a": i} for i in range(4)], scores, [10, 2, 1, 0.1])
    info = search.time_info(found, winner(found))
    assert list(info.marked) == ["best: a 0", "cheapest within one standard error: a 1"]
    assert info.seconds[list(info.marked.values())].tolist() == [10, 2]
    assert info.seconds[info.front].tolist() == [1, 2, 10]


def test_folds_keep_single_failures_and_the_best():
    scores = np.linspace(0, 1, 60)[:, None] + [0.0, 0.1]
    scores[20, 0] = np.nan
    info = search.folds_info(results([{"a": i} for i in range(60)], scores))
    assert len(info.labels) == search.MAX_NAMED
    assert info.labels[0] == "a=59"
    assert "the best 50 of 60" in info.title


def test_parallel_axes_run_from_0_to_1():
    found = results([{"rate": r, "kind": k} for r in (0.01, 0.1, 1.0) for k in "xy"], np.arange(6)[:, None] + [0, 0.5])
    info = search_space.parallel_info(found)
    rate, kind, score = info.axes
    assert rate.ticks == pytest.approx({"0.01": 0, "0.1": 0.5, "1": 1})
    assert kind.ticks == {"x": 0.0, "y": 1.0}
    np.testing.assert_allclose(rate.heights, [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_allclose(score.heights, np.arange(6) / 5)
    assert score.ticks == pytest.approx({f"{tick:g}": (tick - 0.25) / 5 for tick in (1, 2, 3, 4, 5)})


def test_who_is_far_below_does_not_set_the_scale():
    scores = np.append(np.linspace(0.9, 0.95, 20), [0.1, -1e9])
    assert search_style.lowest_shown(scores) == 0.9
    assert search_style.lowest_shown(np.array([0.1, 0.5, 0.9])) == 0.1
    assert search_style.lowest_shown(np.array([0.5, 0.5, 0.5])) == 0.5
    assert search_style.lowest_shown(np.array([np.nan])) == 0.0


def test_names_that_fit():
    assert search_style.short("abcdefghij", 7) == "abc…hij"
    assert search_style.short("$a$", 9) == r"\$a\$"
    assert search_style.format_value(0.95312, 0.9) == "0.953"
    assert search_style.format_value(-3021.4, 2000) == "-3021"
    assert search_style.format_value(-5.5e43, 2000) == "-5.5e+43"


def test_importance_with_and_without_exact_shares(tmp_path):
    info = search_space.importance_info({"b": 0.3, "a": 0.7}, {"a": 0.5, "b": 0.1})
    assert info.names == ["a", "b"]
    np.testing.assert_array_equal(info.exact, [0.5, 0.1])
    axes = search_space.draw_importance(info)
    assert any("interactions 40%" in text.get_text() for text in axes.figure.legends[0].get_texts())
    drawn(axes, tmp_path)
    drawn(search_space.draw_importance(search_space.importance_info({"a" * 80: 1.0, "b": 0.0})), tmp_path)
