"""The report: one file, whatever runs are called; recorded as a run; from the command line; drawn in a browser."""

from __future__ import annotations

import html
import json
import re

import pytest

from mlflow_hp.cli.main import main
from mlflow_hp.compare import compare_runs, gather, open_source, sections
from mlflow_hp.compare.html_report import Head, page
from mlflow_hp.errors import UserError
from tests.helpers.needs import CHROMIUM, needed, needs_chromium
from tests.helpers.stored_runs import SAME, add_run, add_search, new_experiment

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&%{x}$x$\u202e"
FOLDS = {"0.1": (0.9, 0.93, 0.91), "0.01": (0.5, 0.54, 0.51)}


@pytest.fixture
def experiment(store, tmp_path):
    """Two trainings with hostile names and a search, of two authors."""
    made = new_experiment(store, tmp_path)
    curves = {"val_loss": [3.0, 2.0, 1.0], "batch/loss": [3.0, 2.5, 1.0], "batch/learning_rate": [0.1, 0.1, 0.1]}
    for author in ("ada", HOSTILE):
        add_run(store, made, HOSTILE, params={"note": f"{author} {HOSTILE}"}, metrics=curves,
                tags={"kind": "training", "author": author, **SAME})  # fmt: skip
    add_search(store, made, FOLDS)
    return made


def name_of(store, experiment):
    return store.get_experiment(experiment).name


def text_of(report):
    """What a browser shows of a report's tables and words."""
    body = report.partition("<main>")[2].partition("</main>")[0]
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def test_the_report_is_one_file_in_which_names_are_only_text(store, experiment):
    source = open_source(store)
    made = sections(gather(source, experiment_ids=[experiment]), source)
    report = page(Head(HOSTILE, [HOSTILE], "http://host"), made)
    assert report.count("<script") == 3 + report.partition("<script>")[2].partition("</script>")[0].count("<script")
    outside = re.sub(r"<script.*?</script>", "", report, flags=re.DOTALL)
    assert "<img" not in outside
    assert "alert(1)</" not in outside
    assert HOSTILE in text_of(report)
    data = re.search(r'id="figures">(.*?)</script>', report, re.DOTALL).group(1)
    figures = json.loads(data)
    assert set(figures) == {section.key for section in made if section.figure}
    assert "<" not in data
    assert "<img" not in json.dumps(figures)  # Plotly shows some HTML: names are escaped once more
    assert not re.search(r'(src|href)="(?!#|http://host/#/)', outside)
    assert "default-src 'none'" in report


def test_it_is_recorded_as_a_run_of_its_own(store, experiment, tmp_path):
    file = tmp_path / "deep" / "report.html"
    found = compare_runs(experiments=[name_of(store, experiment)], by="author", output=file)
    run = store.get_run(found.run_id)
    assert run.info.experiment_id == experiment
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow_hp.kind"] == "comparison"
    assert "mlflow.parentRunId" not in run.data.tags
    counts = {"n_runs": "5", "n_groups": "2"}
    assert run.data.params == {"experiments": name_of(store, experiment), "by": "author", **counts}
    assert not run.data.metrics
    description = run.data.tags["mlflow.note.content"]
    assert description.startswith("- 5 runs by ")
    assert "**To repeat it**: `" in description
    assert "comparison.html" in [artifact.path for artifact in store.list_artifacts(found.run_id)]
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    again = compare_runs(experiments=[name_of(store, experiment)])
    assert again.n_runs == 6  # and the comparison is left out
    assert "1 run is left out because it is a comparison itself." in again.summary
    third = compare_runs(experiments=[name_of(store, experiment)])
    assert "2 runs are left out, each because it is a comparison itself." in third.summary


def test_a_comparison_that_fails_is_no_finished_run(store, experiment, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("mlflow.MlflowClient.log_text", fail)
    with pytest.raises(UserError, match=r"disk full.*--output FILE"):
        compare_runs(experiments=[name_of(store, experiment)])
    statuses = [run.info.status for run in store.search_runs([experiment], "tags.`mlflow_hp.kind` = 'comparison'")]
    assert statuses == ["FAILED"]


def test_without_tags_and_by_a_user_without_a_name(store, experiment, monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setenv("MLFLOW_HP_TAGS", "0")
    monkeypatch.setattr("getpass.getuser", unknown)
    run = store.get_run(compare_runs(experiments=[name_of(store, experiment)]).run_id)
    assert run.info.status == "FINISHED"
    assert "mlflow_hp.author" not in run.data.tags
    assert "**To repeat it**: `" in run.data.tags["mlflow.note.content"]


def test_the_command(store, experiment, capsys, tmp_path):
    words = ["compare", "--experiment", name_of(store, experiment), "--filter", "metrics.val_loss < 10"]
    assert main([*words, "--by", "author", "--output", str(tmp_path / "r.html")]) == 0
    said = capsys.readouterr().out
    assert "2 runs by 2 authors" in said
    run_id = re.search(r"comparison\.html of run (\w+)", said).group(1)
    assert store.get_run(run_id).data.params["filter"] == "metrics.val_loss < 10"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to compare: name runs"),
        (["0000"], "run '0000' is not in the tracking store"),
        (["--experiment", "no such"], "there is no experiment 'no such'"),
        (["--filter", "metrics.a > 1"], "a filter selects among the runs of experiments"),
    ],
)
def test_bad_input_is_said(store, words, said, capsys):
    assert main(["compare", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@needs_chromium
def test_it_opens_offline_in_a_sandboxed_frame(store, experiment, tmp_path):
    playwright = needed("playwright.sync_api", "playwright")
    compare_runs(experiments=[name_of(store, experiment)], output=tmp_path / "report.html")
    frame = '<iframe sandbox="allow-scripts" style="width:1000px;height:800px" src="report.html"></iframe>'
    (tmp_path / "viewer.html").write_text(frame, encoding="utf-8")
    asked, said = [], []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("dialog", lambda dialog: said.append(dialog.message))
        opened.goto((tmp_path / "viewer.html").as_uri())
        report = opened.frame_locator("iframe")
        report.locator("html[data-drawn=all]").wait_for(state="attached", timeout=60_000)
        assert report.locator(".plot").count() == report.locator(".plot .plot-container").count() >= 6
        assert report.locator(".plot .legendtext, .plot .ytick text").filter(has_text="</script>").count() > 0
        buttons = report.locator(".modebar-btn").evaluate_all("all => all.map((each) => each.dataset.title)")
        assert "Zoom" in buttons
        assert not [title for title in buttons if "Share" in title or "cloud" in title.lower()]
        browser.close()
    assert said == []
    assert {url.rpartition("/")[2] for url in asked} == {"viewer.html", "report.html"}
