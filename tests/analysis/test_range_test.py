"""The range test on losses whose steepest fall and divergence are known."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.diagnosis.finding import Change
from mlflow_hp.analysis.diagnosis.range_test import DIVERGED, range_finding, range_test
from mlflow_hp.history import TrainingHistory
from mlflow_hp.plots import figure
from mlflow_hp.plots.range_test import draw_range_test, range_test_info

RATE = np.geomspace(1e-5, 10, 600)
DECADE = np.log10(RATE)
STEEPEST, FLOOR, BEGIN = -2.0, 0.3, 0.0
"""Decades where the loss falls fastest and where its growth is 1; the height it falls to."""


def history(loss, rate=RATE):
    loss = np.asarray(loss, np.float64)
    return TrainingHistory.from_arrays({"step": np.arange(len(loss)), "learning_rate": rate, "batch_loss": loss})


def falling(diverges=True, noise=0.0, seed=0):
    """A logistic fall of 2 around ``STEEPEST``, then, where it diverges, growth by ten in a quarter of a decade."""
    loss = FLOOR + 2 / (1 + np.exp(4 * (DECADE - STEEPEST)))
    if diverges:
        loss = loss + 10 ** (4 * (DECADE - BEGIN))
    return loss + noise * np.random.default_rng(seed).normal(size=len(loss))


def running_mean(loss, width):
    half = width // 2
    return [np.mean(loss[max(i - half, 0) : i + half + 1]) for i in range(len(loss))]


@pytest.mark.parametrize(("noise", "within"), [(0.0, 0.02), (0.05, 0.2), (0.2, 0.45)])
@pytest.mark.parametrize("seed", range(5))
def test_a_fall_and_a_divergence(noise, within, seed):
    loss = falling(noise=noise, seed=seed)
    test = range_test(history(loss))
    assert DECADE[test.steepest] == pytest.approx(STEEPEST, abs=within)
    clean = falling()
    assert clean[test.lowest] < clean.min() + 0.02 + noise / 2
    crosses = DECADE[np.argmax((clean > DIVERGED * clean.min()) & (DECADE > -1))]
    assert DECADE[test.divergence] == pytest.approx(crosses, abs=0.2)  # within the width of the running mean
    n = test.divergence + 1
    np.testing.assert_array_equal(test.learning_rate, RATE[:n])
    np.testing.assert_array_equal(test.loss, loss[:n])
    mean = np.array(running_mean(loss, 30))
    np.testing.assert_allclose(test.smoothed, mean[:n], rtol=1e-9)
    assert test.divergence == next(i for i in range(test.lowest, 600) if mean[i] > 4 * mean.min())
    assert test.lowest == test.smoothed.argmin()


def test_what_is_suggested():
    test = range_test(history(falling()))
    finding = range_finding(test, RATE)
    rate = RATE[test.steepest]
    assert finding.verdict == "falls, then diverges"
    assert finding.evidence == {
        "steepest_learning_rate": rate,
        "divergence_learning_rate": RATE[test.divergence],
        "suggested_learning_rate": float(f"{rate:.1e}"),
        "lowest_learning_rate": RATE[test.lowest],
    }
    assert finding.suggestion == f"learning_rate={rate:.2g}"
    assert (finding.severity, finding.change) == ("hint", (Change("learning_rate", None, float(f"{rate:.1e}")),))
    assert f"fastest at a learning rate of {rate:.2g}," in finding.text
    assert f"diverges from {RATE[test.divergence]:.2g} on" in finding.text


def test_a_loss_that_does_not_diverge():
    loss = falling(diverges=False)
    test = range_test(history(loss))
    assert test.divergence is None
    assert len(test.loss) == len(RATE)
    assert DECADE[test.steepest] == pytest.approx(STEEPEST, abs=0.02)
    assert test.lowest == len(RATE) - 1
    finding = range_finding(test, RATE)
    assert finding.verdict == "falls"
    assert "does not diverge up to 10." in finding.text
    assert finding.evidence["divergence_learning_rate"] is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("grows", [False, True])
def test_noise_alone_is_no_fall(seed, grows):
    loss = 2.3 + 0.1 * np.random.default_rng(seed).normal(size=len(RATE)) + grows * 10 ** (4 * DECADE)
    test = range_test(history(loss))
    assert test.steepest == -1
    assert (test.divergence is not None) == grows
    finding = range_finding(test, RATE)
    assert finding.verdict == "no fall"
    assert finding.evidence["steepest_learning_rate"] is None
    assert "never falls between learning rates 1e-05 and 10." in finding.text
    assert range_test_info(test, None).marks == {}


@pytest.mark.parametrize("loss", [np.full(600, 2.3), 2.3 + DECADE, 2.3 + 10 ** (4 * DECADE)])
def test_without_noise_a_loss_that_never_falls(loss):
    assert range_test(history(loss)).steepest == -1


def test_a_spike_far_above_the_rest_leaves_no_trace_behind_it():
    loss = falling(diverges=False)
    loss[450], loss[451:] = 1e25, 2.3
    test = range_test(history(loss))
    assert test.divergence == 450 - 15  # where the window of 31 steps reaches the spike
    assert test.lowest == 434
    assert DECADE[test.steepest] == pytest.approx(STEEPEST, abs=0.02)


def test_a_small_fall_counts_where_there_is_little_noise():
    loss = 2.3 + 0.01 * falling(diverges=False, noise=0.1)
    assert DECADE[range_test(history(loss)).steepest] == pytest.approx(STEEPEST, abs=0.3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_breaks(value):
    loss = falling(diverges=False)
    loss[480:] = value
    test = range_test(history(loss))
    assert test.divergence == 480
    assert len(test.learning_rate) == len(test.loss) == len(test.smoothed) == 480
    assert np.isfinite(test.smoothed).all()
    assert DECADE[test.steepest] == pytest.approx(STEEPEST, abs=0.02)
    assert range_finding(test, RATE).evidence["divergence_learning_rate"] == RATE[480]


def test_a_training_that_ends_with_the_first_loss_that_is_none():
    loss = np.append(falling(diverges=False)[:500], np.nan)  # as keras.callbacks.TerminateOnNaN leaves it
    finding = range_finding(range_test(history(loss, RATE[:501])), RATE[:501])
    assert finding.evidence["divergence_learning_rate"] == RATE[500]


@pytest.mark.parametrize("loss", [[np.nan], [np.nan, 1.0, 2.0], [2.0], [2.0, 1.0], [2.0, np.nan]])
def test_too_short_to_tell(loss, tmp_path):
    rate = RATE[: len(loss)]
    test = range_test(history(loss, rate))
    assert test.steepest == -1
    finding = range_finding(test, rate)
    assert finding.verdict == "no fall"
    broken = np.flatnonzero(np.isnan(loss))
    assert finding.evidence["divergence_learning_rate"] == (rate[broken[0]] if len(broken) else None)
    info = range_test_info(test, finding.evidence["divergence_learning_rate"])
    assert figure.save(draw_range_test(info), tmp_path / "a.png").exists()


def test_the_pictures_numbers():
    test = range_test(history(falling(noise=0.05)))
    info = range_test_info(test, float(RATE[test.divergence]))
    steepest, lowest = ((RATE[i], test.smoothed[i]) for i in (test.steepest, test.lowest))
    assert info.marks == {f"steepest fall: {steepest[0]:.2g}": steepest, f"lowest: {lowest[0]:.2g}": lowest}
    np.testing.assert_array_equal(info.learning_rate, test.learning_rate)
    np.testing.assert_array_equal(info.loss, test.loss)
    np.testing.assert_array_equal(info.smoothed, test.smoothed)
    assert info.divergence == RATE[test.divergence]


def test_the_picture():
    test = range_test(history(falling(noise=0.05)))
    axes = draw_range_test(range_test_info(test, float(RATE[test.divergence])))
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels[:2]) == len(set(labels[:2])) == 2
    assert labels[0] == "each batch"
    assert labels[1].startswith("mean of")
    assert [label.split(":")[0] for label in labels[2:]] == ["steepest fall", "lowest", "diverges"]
    marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in marks] == [RATE[test.steepest], RATE[test.lowest]]
    assert [line.get_ydata()[0] for line in marks] == [test.smoothed[test.steepest], test.smoothed[test.lowest]]
