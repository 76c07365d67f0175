"""Tools of an assistant, called directly: what they say, how long it may be, and what they never say."""

from __future__ import annotations

import asyncio

import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.assistant import improvement, tools
from mlflow_hp.assistant.answer import MAX_BYTES, answer
from mlflow_hp.assistant.server import make_server
from mlflow_hp.errors import UserError
from tests.helpers.fits import X, Y, regression
from tests.helpers.stored_runs import SAME, add_run, new_experiment

LINK = "https://host/data.csv?token=hunter2hunter2"


@pytest.fixture(scope="module")
def trained(tracking_uri):
    """The id of a run with a recorded training."""
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment("tests")
    with mlflow.start_run(run_name="for tools") as run:
        regression().fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
    return run.info.run_id


@pytest.mark.sampled(4)
@pytest.mark.parametrize("text", ["x" * 5000, "ü€😀" * 2000, "a\nb\x1b[2J", "\ud800" * 3000])
@pytest.mark.parametrize("n", [1, 50, 3000])
def test_an_answer_is_bounded_and_printable(text, n):
    said = answer([text] * n, "narrow the range " * 50)
    assert len(said.encode()) <= MAX_BYTES
    assert all(line.isprintable() for line in said.splitlines())
    if n > 10:
        shown = len(said.splitlines()) - 1
        assert f"(left out: {n - shown} of {n} lines" in said or shown == n - 1


def test_a_secret_is_masked(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    run_id = add_run(store, experiment, "hostile", params={"data": LINK, "password": "hunter2hunter2"})
    name = store.get_experiment(experiment).name
    for said in (tools.show_run(run_id), tools.list_runs(name), tools.propose_next(run_id)):
        assert "hunter2" not in said


def test_experiments_and_runs(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    name = store.get_experiment(experiment).name
    better = add_run(store, experiment, "better", params={"learning_rate": 0.1}, metrics={"val_loss": 0.1})
    add_run(store, experiment, "worse", params={"learning_rate": 1}, metrics={"val_loss": 0.9})
    assert f'"name":"{name}"' in tools.list_experiments()
    first, second = tools.list_runs(name, order_by="metrics.val_loss ASC").splitlines()
    assert (f'"id":"{better}"' in first, '"val_loss":0.9' in second) == (True, True)
    assert tools.list_runs(experiment, filter="metrics.val_loss < 0.5").count("\n") == 0
    assert tools.list_runs(name, filter="metrics.val_loss > 7") == "no runs"


def test_a_list_of_many_runs_tells_what_is_left_out(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    for i in range(50):
        add_run(store, experiment, f"run {i} " + "é" * 200)
    said = tools.list_runs(store.get_experiment(experiment).name, limit=50)
    assert len(said.encode()) <= MAX_BYTES
    assert said.splitlines()[-1].startswith("(left out: ")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: tools.list_runs("none such"), "there is no experiment 'none such'"),
        (lambda: tools.list_runs("tests", filter="what?"), "MLflow refuses filter='what?'"),
        (lambda: tools.show_run("0" * 32), "is not in the tracking store"),
        (lambda: tools.history("0" * 32), "check the id"),
        (lambda: tools.compare([]), "give 1 to"),
        (lambda: improvement.run_improvement("--trust", 3, 1.0), "is not the id of a run"),
        (lambda: improvement.run_improvement("a" * 32, 99, 1.0), "give 1 to 20"),
    ],
)
def test_bad_input_is_an_error_of_one_sentence(store, call, complaint):
    with pytest.raises(UserError, match=complaint.replace("?", r"\?")):
        call()


def test_a_training(store, trained):
    said = tools.show_run(trained)
    assert said.startswith("for tools: training, finished, by ")
    assert "settings: optimizer RMSprop, learning_rate 0.05, batch_size 8, epochs 4" in said
    assert "result: loss " in said
    assert "problem: " in said or "hint: " in said
    recorded = mlflow_hp.load_history(trained)
    columns = tools.history(trained)
    assert columns.startswith("20 steps, 4 epochs\ncolumns of the steps: ")
    assert ("batch_loss" in columns, columns.endswith("columns of the epochs: loss, seconds")) == (True, True)
    rows = tools.history(trained, "batch_loss", start=5, stop=15).splitlines()
    assert rows[0] == "step,batch_loss (10 of 10 points)"
    read = np.array([[float(cell) for cell in row.split(",")] for row in rows[1:]])
    np.testing.assert_array_equal(read[:, 0], np.arange(5, 15))
    np.testing.assert_allclose(read[:, 1], recorded.steps["batch_loss"][5:15], rtol=1e-5)
    assert tools.history(trained, "loss").count("\n") == 4
    with pytest.raises(UserError, match="column='none' is not in the history"):
        tools.history(trained, "none")
    with pytest.raises(UserError, match="from 0 on"):
        tools.history(trained, "loss", start=9)
    assert "mlflow_hp.improve(train, start)" in tools.propose_next(trained)


def test_a_comparison_writes_nothing(store, tmp_path):
    experiment = new_experiment(store, tmp_path)
    ids = [
        add_run(store, experiment, metrics={"val_loss": value}, tags={"kind": "training", **SAME})
        for value in (0.25, 0.5)
    ]
    said = tools.compare(ids)
    assert "val_loss 0.25" in said
    assert len(store.search_runs([experiment])) == 2


def call_tool(server, name, **arguments):
    """What a server's tool answers, in a client's session in this process."""
    from mcp import Client

    async def call():
        async with Client(server) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            result = await client.call_tool(name, arguments)
            return names, result.is_error, result.content[0].text

    return asyncio.run(call())


def test_by_default_all_tools_read(store):
    names, is_error, said = call_tool(make_server(), "show_run", run_id="0" * 32)
    assert names == {"list_experiments", "list_runs", "show_run", "history", "compare", "propose_next"}
    assert is_error
    assert "is not in the tracking store" in said
    assert "\n" not in said


def test_an_unexpected_error_is_a_sentence_without_secrets(store, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(f"lost\n{LINK}")

    monkeypatch.setattr(mlflow.MlflowClient, "search_experiments", fail)
    _, is_error, said = call_tool(make_server(), "list_experiments")
    assert (is_error, "RuntimeError: lost" in said, "hunter2" in said, "\n" in said) == (True, True, False, False)


@pytest.mark.thorough
def test_an_improvement_is_a_command_with_a_time_limit(store, trained):
    names, is_error, said = call_tool(make_server(allow_run=True), "run_improvement", run_id=trained, trainings=1)
    assert "run_improvement" in names
    assert is_error
    assert "is no run of an experiment of the MLproject" in said
    with pytest.raises(UserError, match=r"took longer than 0\.1 s"):
        improvement.run_improvement(trained, 1, 0.1)
