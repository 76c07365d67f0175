"""A history, snapshots, findings and a search in a terminal and in a notebook; with hostile names, too."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp import TrainingHistory
from mlflow_hp.analysis import Finding
from mlflow_hp.analysis.diagnosis import Findings
from mlflow_hp.history import Snapshots

HOSTILE = "<script>alert(1)</script>\x1b[2J\n\u202e<img src=x onerror=alert(1)>\"'&"


class Tags(HTMLParser):
    """Names and attributes of the elements of HTML, and its text."""

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.text = set(), set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


def history(n=1000, name="batch_loss", **more):
    return TrainingHistory.from_arrays({name: np.linspace(2.0, 1.0, n)}, {"epoch": [0], "loss": [1.5]}, **more)


def test_a_history_is_a_few_lines():
    lines = repr(history(meta={"optimizer": {"name": "SGD", "learning_rate": 0.1}})).splitlines()
    assert lines == [
        "TrainingHistory",
        "  length: 1,000 steps, 1 epoch",
        "  optimizer: SGD, learning rate 0.1",
        "  last epoch: loss 1.5",
        "  columns: batch_loss",
    ]


def test_the_curve_keeps_a_spike_among_many_steps():
    loss = np.ones(100_000)
    loss[54_321] = 99.0
    shown = TrainingHistory.from_arrays({"batch_loss": loss})._repr_html_()
    points = re.search('points="([^"]*)"', shown)[1].split()
    assert len(points) < 300
    heights = [float(point.split(",")[1]) for point in points]
    assert heights.count(min(heights)) == 1
    assert min(heights) < 2 < 100 < max(heights)
    assert "from 1 to 99" in shown


@pytest.mark.parametrize("loss", [[1.0], [np.nan, np.nan, np.nan], [1.0, 1.0, np.inf]])
def test_a_curve_that_is_none_is_left_out(loss):
    shown = TrainingHistory.from_arrays({"batch_loss": loss})._repr_html_()
    assert ("<svg" in shown) == (np.isfinite(loss).sum() > 1)


def test_hostile_names_are_text():
    shown = [
        history(name=HOSTILE, meta={"optimizer": {"name": HOSTILE, "learning_rate": HOSTILE}}),
        Finding(HOSTILE, HOSTILE, HOSTILE, {}, HOSTILE, "hint"),
        Findings([Finding(HOSTILE, HOSTILE, HOSTILE, {}, HOSTILE, "hint")]),
    ]
    for each in shown:
        page = Tags(each._repr_html_())
        assert page.names <= {"table", "tr", "th", "td", "div", "b", "svg", "polyline"}
        assert page.attributes <= {
            "style",
            "role",
            "aria-label",
            "width",
            "height",
            "viewbox",
            "fill",
            "stroke",
            "points",
        }
        assert "<script>alert(1)</script>" in page.text
        assert all(line.isprintable() for line in repr(each).splitlines())
    snapshots = Snapshots(np.array([0, 2]), {HOSTILE: np.zeros((2, 3), np.float32)}, every=2, n_steps=2)
    assert repr(snapshots).isprintable()


def test_snapshots_are_a_line():
    snapshots = Snapshots(np.array([0, 2, 4]), {"dense/kernel": np.zeros((3, 5, 2), np.float32)}, every=2, n_steps=4)
    assert repr(snapshots) == "Snapshots: 3 of 4 steps, every 2; 10 weights in 1 tensor: dense/kernel"


def test_findings_are_a_line_each():
    hint = Finding("speed", "too slow", "It crawls.", {}, "try 0.1", "hint")
    fine = Finding("end", "converged", "It is there.", {})
    assert repr(Findings([hint, fine])) == "<hint: too slow: It crawls. Try: try 0.1>\n<fine: converged: It is there.>"
    assert Findings([hint]) == [hint]


def test_a_recorded_search_tells_its_result(store):
    samples, y = make_regression(30, 3, random_state=0)
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3)
    with mlflow_hp.record_search(search, report=False, progress=False) as recording:
        assert "no fit has ended yet" in repr(recording)
        search.fit(samples, y)
    assert repr(recording).splitlines()[0] == f"SearchRecording of GridSearchCV of Ridge, run {recording.run_id}"
    assert repr(recording).splitlines()[1].startswith("The best of 2 candidates is alpha=0.1, mean score ")
    assert Tags(recording._repr_html_()).names == {"div", "br"}
