"""A training as one HTML file: everything is in it, small enough to keep, and hostile names stay text."""

from __future__ import annotations

import base64
import gzip
import json
import re

import mlflow
import numpy as np
import pytest

from mlflow_hp import TrainingHistory
from mlflow_hp.analysis import Finding
from mlflow_hp.run_page.document import document, training_content
from mlflow_hp.run_page.summary import findings_from, summary

pytestmark = pytest.mark.usefixtures("store")

NAUGHTY = "</script><img src=x onerror=alert(1)>"


def run_with(name="run", **tags):
    with mlflow.start_run(run_name=name, tags={key.replace("__", "."): value for key, value in tags.items()}) as run:
        mlflow.log_param("learning_rate", NAUGHTY)
    return mlflow.get_run(run.info.run_id)


def packed(html, name):
    text = re.search(f'id="{name}">([^<]*)<', html)[1]
    return gzip.decompress(base64.b64decode(text)).decode()


def large(n_tensors=240, n=2000):
    rng = np.random.default_rng(0)
    names = [f"layer_{i}/kernel" for i in range(n_tensors)]
    steps = {
        "batch_loss": rng.lognormal(size=n),
        **{f"gradient_norm_of/{name}": rng.lognormal(size=n) for name in names},
    }
    keys = ("norm", "mean", "std", "update_ratio")
    statistics = {name: {key: rng.lognormal(size=n + 1) for key in keys} for name in names}
    return TrainingHistory.from_arrays(steps, statistics=statistics)


def test_a_net_of_240_tensors_fits_into_3_megabytes():
    html = document(summary(run_with(), []), training_content("0f3a", large()))
    assert len(html.encode()) <= 3_000_000
    shown = json.loads(packed(html, "content"))["training"]
    assert {len(each["rows"]) for each in shown["heatmaps"]} == {240}
    assert "Plotly" in packed(html, "plotly")


def test_it_asks_for_nothing():
    html = document(summary(run_with(), []), training_content("0f3a", large(2, 10)))
    written = re.sub(r'id="(?:plotly|content)">[^<]*<', "", html)
    assert not re.search(r"<[^>]+(?:src|href)=|@import|url\(", written)
    assert "import " not in re.search(r'<script type="module">(.*?)</script>', html, re.DOTALL)[1]


def test_hostile_texts_are_text():
    finding = Finding("speed", NAUGHTY, NAUGHTY, {}, NAUGHTY, "problem")
    run = run_with(NAUGHTY, mlflow__note__content=NAUGHTY, mlflow_hp__author=NAUGHTY)
    html = document(summary(run, [finding]), training_content("0f3a", large(1, 10)))
    assert "<img" not in html
    assert json.loads(packed(html, "content"))["summary"]["findings"][0]["text"] == NAUGHTY


def test_a_summary_says_the_result_not_the_question():
    description = "Which path does it take?\n\n**Result:** loss 3.\n\nMore."
    said = summary(run_with(mlflow__note__content=description, mlflow_hp__kind="sweep"), [])
    assert (said["result"], said["run"]["kind"], said["command"]) == ("**Result:** loss 3.", "sweep", None)


def test_what_a_search_varies_is_no_setting_of_it():
    with mlflow.start_run() as run:
        mlflow.log_params({"learning_rate": 0.1, "epochs": 4, "batch_size": 32, "optimizer": "SGD"})
        mlflow.log_params(
            {"space/model__learning_rate": "[0.1, 1]", "space_1/batch_size": "[8, 32]", "spacex/epochs": 4}
        )
    said = summary(mlflow.get_run(run.info.run_id), [])
    assert said["settings"] == [["optimizer", "SGD"], ["epochs", "4"]]


def test_what_is_no_file_of_findings_has_none():
    for text in ("", "[" * 100_000, "[]", "nonsense", '{"a": 1}', '{"a": {"name": "b"}}', "null"):
        assert findings_from(text) == []
