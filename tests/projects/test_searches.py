"""The searches, whole, at a small size: what their runs hold, and how they end."""

from __future__ import annotations

import itertools
import json

import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.search.time_limit import TimeLimit
from projects import (
    adaptive_search,
    clusters,
    grid_search,
    models,
    random_search,
    search_advice,
    search_runner,
    search_settings,
)
from projects.runner import run

SMALL = ["--max_samples", "200", "--hidden", "8", "--epochs", "2", "--batch_size", "32", "--cv", "2"]
RATES = '{"learning_rate": [0.001, 0.1]}'
SPACE = '{"learning_rate": {"low": 0.001, "high": 0.1, "log": true}, "epochs": [1, 3]}'


@pytest.fixture
def go(store, capsys):
    """Run an experiment; gives its top run, its children by name, and what it said on stdout and stderr."""

    def go(experiment, *argv, status=0):
        before = {r.info.run_id for r in all_runs(store)}
        assert run(experiment, [*SMALL, *argv]) == status
        new = [r for r in all_runs(store) if r.info.run_id not in before]
        assert not [r for r in all_runs(store) if r.info.status == "RUNNING"]
        top = next(r for r in new if "mlflow.parentRunId" not in r.data.tags)
        printed = capsys.readouterr()
        return top, children(store, top.info.run_id), printed.out, printed.err

    return go


WHOLE = []


@pytest.fixture
def a_whole_search(go):
    """A grid search of learning rates, run once for all tests that look at it or compare with it."""
    if not WHOLE:
        WHOLE.append(go(grid_search.EXPERIMENT, "--grid", RATES))
    return WHOLE[0]


def all_runs(store):
    experiment = store.get_experiment_by_name("tests").experiment_id
    return mlflow.search_runs([experiment], output_format="list", max_results=5000)


def children(store, run_id):
    return {r.info.run_name: r for r in all_runs(store) if r.data.tags.get("mlflow.parentRunId") == run_id}


def note(run):
    return run.data.tags["mlflow.note.content"]


def one_line(err):
    """What the program said at its end; before it, the bar draws over itself."""
    last = err.rstrip("\n").split("\n")[-1]
    assert "Traceback" not in err
    assert len(last) < 600
    return last


def test_a_grid(a_whole_search, store):
    top, below, out, _ = a_whole_search
    assert (top.info.status, top.data.tags["mlflow_hp.kind"]) == ("FINISHED", "search")
    assert set(below) == {"learning_rate=0.001", "learning_rate=0.1", "best"}
    metrics = top.data.metrics
    assert metrics["best_score"] == max(below[n].data.metrics["mean_score"] for n in below if n != "best")
    assert metrics["test_score"] == below["best"].data.metrics["test_score"]
    best = json.loads(top.data.tags["mlflow_hp.best_params"])
    assert below["best"].data.params["learning_rate"] == best["learning_rate"]
    assert top.data.params["model/largest_difference"] == "0.0"
    data = search_settings.load(settings_of(grid_search, "--grid", RATES))
    for found in (top, below["best"]):
        assert found.data.tags["mlflow_hp.data_digest"] == data.digest
    [logged] = mlflow.search_logged_models(filter_string=f"source_run_id = '{top.info.run_id}'", output_format="list")
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    assert loaded.metadata.signature.outputs.inputs[0].shape == (-1, 10)
    accuracy = np.mean(loaded.predict(data.x_test).argmax(axis=1) == data.y_test)
    assert accuracy == pytest.approx(metrics["test_score"])
    assert note(top).startswith("**Result**: The best of 2 candidates is `learning_rate=")
    parts = ["on the test part", f"**{grid_search.QUESTION}**", "- The best, ", "**Data**"]
    assert sorted(parts, key=note(top).index) == parts
    repeat = f"mlflow run . -e grid_search --env-manager local -P max_samples=200 -P 'grid={RATES}' -P hidden=8"
    assert f"**To repeat it**: `{repeat} " in note(top)
    assert "on the test part" in out
    pictures = {a.path for a in store.list_artifacts(top.info.run_id, "plots")}
    assert {"plots/scores.png", "plots/samples.png"} <= pictures


def settings_of(program, *argv):
    given = dict(zip(argv[::2], argv[1::2], strict=True)) | dict(zip(SMALL[::2], SMALL[1::2], strict=True))
    return {p.name: p.read(given.get(f"--{p.name}", p.default)) for p in program.PARAMETERS}


def test_the_recorded_refit_is_that_of_scikit_learn(go, store):
    from sklearn.model_selection import GridSearchCV

    settings = settings_of(grid_search)
    data = search_settings.load(settings)
    half = np.arange(len(data.x_train) // 2)
    asked = search_settings.common(data, settings) | {
        "refit": True, "cv": [(half, half)], "scoring": lambda *_: 1.0
    }  # fmt: skip
    search = GridSearchCV(search_settings.estimator(data, settings), {"learning_rate": [0.1]}, **asked)
    search.fit(data.x_train, data.y_train)
    with mlflow.start_run():
        best = search_runner.train_and_test(
            "best", search.estimator, search.best_params_, search_settings.SearchSetup("?", settings, "", data)
        )
    weights, expected = best.estimator.model_.get_weights(), search.best_estimator_.model_.get_weights()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(weights, expected, strict=True))
    assert best.history.n_epochs == 2


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_without_the_best_trained_once_more(go):
    top, below, out, _ = go(grid_search.EXPERIMENT, "--grid", '{"hidden": ["4", "8"]}', "--refit", "false")
    assert set(below) == {"hidden=4", "hidden=8"}
    assert "test_score" not in top.data.metrics
    assert "**To repeat it**" in note(top)
    assert "The best" in out


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_one_value_that_fails(go):
    grid = '{"optimizer": ["SGD", "Adam"], "momentum": [0.5]}'
    top, below, out, err = go(grid_search.EXPERIMENT, "--grid", grid)
    assert top.info.status == "FINISHED"
    assert {name: child.info.status for name, child in below.items()} == {
        "optimizer=SGD": "FINISHED", "optimizer=Adam": "FAILED", "best": "FINISHED"
    }  # fmt: skip
    assert "Fits failed with mlflow_hp.errors.UserError: momentum=0.5: Adam takes none" in out
    assert "Traceback" not in err
    assert out.count("momentum=0.5: Adam takes none") == 1


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_all_values_failing(go):
    grid = '{"optimizer": ["Adam", "Nadam"], "momentum": [0.5]}'
    top, below, _, err = go(grid_search.EXPERIMENT, "--grid", grid, status=2)
    assert {run.info.status for run in [top, *below.values()]} == {"FAILED"}
    assert one_line(err).startswith("grid_search: all fits failed; mlflow_hp.errors.UserError: momentum=0.5: ")


@pytest.mark.sampled(4)
@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--grid", "{}"], "has to name parameters"),
        (["--grid", '{"epoch": [1]}'], "did you mean 'epochs'"),
        (["--scoring", "acuracy"], "did you mean 'accuracy'"),
        (["--cv", "100"], "cv=100 folds need"),
        (["--resume", "nothing"], "resume='nothing' is not in the tracking store"),
        (["--n_jobs", "0"], "n_jobs='0' has to be"),
        (["--engine", "fast"], "engine='fast' has to be one of plain, vectorised"),
        (["--prune", "some"], "prune='some' has to be one of exact, tested"),
        (["--time_budget", "soon"], "time_budget='soon' has to be seconds, or a text such as 90s"),
        (["--repeats", "0"], "repeats='0' has to be a whole number from 1"),
        (["--prune", "exact", "--engine", "vectorised"], "prune='exact' has no fits to save with engine='vectorised'"),
        (["--repeats", "2", "--record", "batches"], "repeats=2 and record='batches' exclude each other"),
    ],
)
@pytest.mark.usefixtures("blank_pictures")
def test_bad_input(go, argv, said):
    top, below, _, err = go(grid_search.EXPERIMENT, *argv, status=2)
    assert (top.info.status, below) == ("FAILED", {})
    assert said in one_line(err)
    assert err.count("\n") == 1


def stops_at(monkeypatch, learning_rate, marker):
    """Have the search interrupted there as long as the file `marker` is there: the code stays the same without it."""
    optimizer = models.optimizer

    def interrupted(name, rate, **settings):
        if rate == learning_rate and marker.exists():
            raise KeyboardInterrupt
        return optimizer(name, rate, **settings)

    monkeypatch.setattr(models, "optimizer", interrupted)


@pytest.mark.thorough
def test_an_interrupted_search_is_resumed(request, go, a_whole_search, store, monkeypatch, tmp_path):
    whole, expected, _, _ = a_whole_search
    grid, marker = ["--grid", RATES], tmp_path / "stop"
    stops_at(monkeypatch, 0.1, marker)
    marker.touch()
    request.getfixturevalue("blank_pictures")  # from now on: those of the whole search are drawn
    top, below, _, err = go(grid_search.EXPERIMENT, *grid, status=130)
    marker.unlink()
    assert top.info.status == "KILLED"
    assert {name: child.info.status for name, child in below.items()} == {
        "learning_rate=0.001": "FINISHED", "learning_rate=0.1": "KILLED"
    }  # fmt: skip
    assert "**Interrupted** when 1 of 2 combinations were done" in note(top)
    assert f"-P resume={top.info.run_id}`" in note(top)
    assert note(top).index("| learning_rate=") < note(top).index("**To repeat it**")
    assert "grid_search: interrupted" in err
    again, nothing, out, _ = go(grid_search.EXPERIMENT, *grid, "--resume", top.info.run_id)
    found = store.get_run(top.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["mlflow_hp.folds_taken_over"] == "2"
    for name in ("best_score", "test_score"):
        assert found.data.metrics[name] == whole.data.metrics[name]
    assert children(store, top.info.run_id).keys() == expected.keys()
    assert (again.info.status, nothing) == ("FINISHED", {})
    assert again.data.tags["mlflow_hp.went_on_with"] == top.info.run_id
    assert f"`{top.info.run_id}`" in note(again)
    assert "-P resume=" not in note(found)
    assert top.info.run_id in out
    assert "Interrupted" not in note(found)


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_an_interrupted_training_of_the_best_keeps_the_search(go, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(search_runner, "train_and_test", interrupted)
    top, below, _, _ = go(grid_search.EXPERIMENT, "--grid", RATES, status=130)
    assert top.info.status == "KILLED"
    assert {child.info.status for child in below.values()} == {"FINISHED"}
    assert "- The best, " in note(top)


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_an_interrupted_advice_keeps_the_search_which_is_resumed(go, store, monkeypatch):
    calls = []

    def interrupted(setup, search, results):
        calls.append(search.best_params_)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return search_advice.Advised("Advised.", {"advised_score": 0.5})

    monkeypatch.setattr(search_advice, "follow", interrupted)
    argv = ["--grid", RATES, "--refit", "false", "--improve", "1"]
    top, _, _, _ = go(grid_search.EXPERIMENT, *argv, status=130)
    assert (top.info.status, top.data.tags["mlflow_hp.kind"]) == ("KILLED", "search")
    assert note(top).startswith("**Result**: The best of 2 candidates is ")
    _, _, out, _ = go(grid_search.EXPERIMENT, *argv, "--resume", top.info.run_id)
    found = store.get_run(top.info.run_id)
    assert (found.data.tags["mlflow_hp.folds_taken_over"], found.data.metrics["advised_score"]) == ("4", 0.5)
    assert "over 2 folds. Advised.\n\n**Which" in note(found)
    assert "Advised." in out


def time_is_over_after(monkeypatch, n_fits):
    answers = itertools.chain([False] * n_fits, itertools.repeat(True))
    monkeypatch.setattr(TimeLimit, "is_over", property(lambda _: next(answers)))


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_a_search_that_its_time_cuts_is_resumed(go, a_whole_search, store, monkeypatch):
    whole, expected, _, _ = a_whole_search
    with monkeypatch.context() as patch:
        time_is_over_after(patch, 2)
        top, below, out, _ = go(grid_search.EXPERIMENT, "--grid", RATES, "--time_budget", "1min")
    assert top.info.status == "KILLED"
    assert set(below) == {"learning_rate=0.001", "best"}
    assert below["best"].data.metrics["test_score"] == top.data.metrics["test_score"]
    for text in (out, note(top)):
        assert "Cut by the time budget of 60 s: 2 of 4 fits, of 1 candidate; " in text
        assert f"-P resume={top.info.run_id}" in text
    again, _, _, _ = go(grid_search.EXPERIMENT, "--grid", RATES, "--resume", "true")
    found = store.get_run(top.info.run_id)
    assert found.info.status == again.info.status == "FINISHED"
    assert found.data.metrics["best_score"] == whole.data.metrics["best_score"]
    assert "Cut by" not in note(found)
    assert expected.keys() <= children(store, top.info.run_id).keys()


@pytest.mark.usefixtures("blank_pictures")
def test_a_time_in_which_no_combination_gets_all_folds(go, monkeypatch):
    time_is_over_after(monkeypatch, 1)
    top, _, _, err = go(grid_search.EXPERIMENT, "--grid", RATES, "--time_budget", "1min", status=2)
    assert top.info.status == "FAILED"
    assert "time_budget=1min was over before a combination had all its folds: raise it, and add" in one_line(err)


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_all_at_once_with_several_seeds(go):
    grid = '{"learning_rate": [0.0001, 0.001, 0.01, 0.1]}'
    argv = ["--engine", "vectorised", "--repeats", "2", "--refit", "false"]
    top, below, out, _ = go(grid_search.EXPERIMENT, "--grid", grid, *argv)
    assert sorted(run.data.tags["mlflow_hp.engine"] for run in below.values()) == ["plain"] * 3 + ["vectorised"]
    assert all("seed_std_score" in run.data.metrics for run in below.values())
    for text in (out, note(top)):
        assert "luck (the seed)" in text


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("experiment", "of_record_search"),
    [
        (grid_search.EXPERIMENT, {"engine": "plain", "time_budget": "1h"}),
        (random_search.EXPERIMENT, {"engine": "plain", "time_budget": "1h"}),
        (adaptive_search.EXPERIMENT, {}),  # has a time budget of its own
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.usefixtures("blank_pictures")
def test_what_the_search_itself_does_not_take_goes_to_its_recording(go, monkeypatch, experiment, of_record_search):
    seen = []

    def refused(search, **options):
        seen.append(options)
        raise UserError("seen")

    monkeypatch.setattr(mlflow_hp, "record_search", refused)
    go(experiment, "--prune", "tested", "--repeats", "2", "--time_budget", "1h", status=2)
    common = {"record": "epochs", "resume": False, "prune": "tested", "repeats": 2}
    assert seen == [common | of_record_search]


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.usefixtures("blank_pictures")
def test_a_search_and_the_advice_about_its_winner(go, store):
    argv = ["--grid", '{"learning_rate": [0.3]}', "--refit", "false", "--max_samples", "80", "--improve", "1"]
    top, below, out, _ = go(grid_search.EXPERIMENT, *argv)
    advice = below["advice about the winner"]
    trainings = children(store, advice.info.run_id)
    assert {run.data.tags["mlflow_hp.training"] for run in trainings.values()} == {"0", "1"}
    assert "Following the advice about the winner" in note(top)
    assert "Following the advice about the winner" in out
    assert top.data.metrics["best_score"] == max(
        run.data.metrics["mean_score"] for name, run in below.items() if name != "advice about the winner"
    )


@pytest.mark.usefixtures("one_of_each_picture")
def test_a_random_search_against_its_baseline(go, store):
    top, below, out, _ = go(random_search.EXPERIMENT, "--space", SPACE, "--n_iter", "2")
    metrics = top.data.metrics
    assert len(below) == 4
    assert below["baseline"].data.params["epochs"] == "2"
    assert metrics["baseline_score"] == below["baseline"].data.metrics["test_score"]
    assert metrics["gain"] == pytest.approx(metrics["test_score"] - metrics["baseline_score"])
    assert metrics["gain_low"] <= metrics["gain"] <= metrics["gain_high"]
    assert "95% interval from" in note(top)
    assert "95% interval from" in out
    pictures = {a.path for a in store.list_artifacts(top.info.run_id, "plots")}
    assert {"plots/loss_by_epoch.png", "plots/accuracy_by_epoch.png", "plots/scores.png"} <= pictures


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("experiment", [grid_search.EXPERIMENT, random_search.EXPERIMENT], ids=lambda e: e.name)
def test_halving(request, go, experiment):
    if experiment is random_search.EXPERIMENT:
        request.getfixturevalue("blank_pictures")
    grid = '{"learning_rate": [0.001, 0.01, 0.1]}'
    asked = ["--grid", grid] if experiment is grid_search.EXPERIMENT else ["--space", SPACE, "--n_iter", "3"]
    top, below, _, _ = go(experiment, *asked, "--halving", "true", "--refit", "false")
    assert top.info.status == "FINISHED"
    assert any("round=1" in name for name in below)


@pytest.mark.slow
@pytest.mark.usefixtures("blank_pictures")
def test_halving_over_epochs_goes_on_up_to_the_epochs(go):
    grid = ["--grid", '{"learning_rate": [0.001, 0.01, 0.1]}']
    top, below, _, _ = go(grid_search.EXPERIMENT, *grid, "--halving", "epochs", "--epochs", "3", "--refit", "false")
    assert top.info.status == "FINISHED"
    assert sorted(run.data.params["epochs"] for run in below.values()) == ["1", "1", "1", "3"]
    assert [run.data.tags.get("mlflow_hp.shared_epochs_with") is not None for run in below.values()].count(True) == 1
    *_, err = go(grid_search.EXPERIMENT, "--grid", '{"epochs": [1, 2]}', "--halving", "epochs", status=2)
    assert "take them out of the grid" in one_line(err)
    *_, err = go(grid_search.EXPERIMENT, *grid, "--halving", "some", status=2)
    assert "samples or epochs, or false" in one_line(err)


@pytest.mark.thorough
def test_numbers_to_predict(go, tmp_path):
    from sklearn.datasets import load_diabetes

    file = tmp_path / "diabetes.csv"
    load_diabetes(as_frame=True).frame.to_csv(file, index=False)
    top, _, _, _ = go(grid_search.EXPERIMENT, "--data", str(file), "--grid", '{"learning_rate": [0.01]}')
    assert "Scores are R2" in note(top)
    assert top.data.params["model/largest_difference"] == "0.0"


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_dask_that_is_not_there(go, monkeypatch):
    monkeypatch.setattr(clusters, "ANSWER_SECONDS", 1)
    _, _, _, err = go(grid_search.EXPERIMENT, "--grid", RATES, "--dask", "tcp://127.0.0.1:9", status=2)
    assert "dask=tcp://127.0.0.1:9: no scheduler answers there" in one_line(err)
    _, _, _, err = go(grid_search.EXPERIMENT, "--grid", RATES, "--dask", "nowhere://x", status=2)
    assert "no scheduler answers there" in one_line(err)
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    _, _, _, err = go(grid_search.EXPERIMENT, "--grid", RATES, "--dask", "local", status=2)
    assert "pip install 'mlflow_hp[dask]'" in one_line(err)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_and_processes_give_the_same(request, go, a_whole_search):
    request.getfixturevalue("blank_pictures")
    runs = [
        go(grid_search.EXPERIMENT, "--grid", RATES, "--n_jobs", "2", *more)[0] for more in ([], ["--dask", "local"])
    ]
    runs.append(a_whole_search[0])
    for name in ("best_score", "test_score"):
        assert len({run.data.metrics[name] for run in runs}) == 1
