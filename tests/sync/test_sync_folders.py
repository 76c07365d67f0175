"""From a store of files of which folders are damaged: what is whole comes, and each folder that does not is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.errors import UserError
from mlflow_hp.sync import selection
from mlflow_hp.sync.stores import absolute, connect
from tests.helpers.synced_runs import bring, brought, record, verified


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a store with three runs, `r0` to `r2`, and a model of `r0`."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    root = tmp_path / "mlruns"
    client = mlflow.MlflowClient(root.as_uri())
    experiment = client.create_experiment("exp")
    runs = [record(client, experiment, f"r{i}") for i in range(3)]
    for run in runs:
        client.log_text(run.info.run_id, "x", "a.txt")
    client.create_logged_model(experiment, "net", runs[0].info.run_id)
    return root


def run_folder(root, name="r1"):
    client = mlflow.MlflowClient(root.as_uri())
    experiment = client.get_experiment_by_name("exp").experiment_id
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}'")
    return root / experiment / run.info.run_id


def a_file_instead(path):
    shutil.rmtree(path)
    path.write_text("x")


def without(part):
    return lambda run: shutil.rmtree(run / part)


def holding(path, content):
    def damage(run):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_bytes(content)

    return damage


DAMAGE = {
    "no meta.yaml": (lambda run: (run / "meta.yaml").unlink(), "it has no meta.yaml"),
    "an empty meta.yaml": (holding("meta.yaml", b""), "its meta.yaml is empty"),
    "broken YAML": (holding("meta.yaml", b"{a: [\n\t:"), "MLflow cannot read it (ParserError"),
    "no text": (holding("meta.yaml", b"\xff\xfe\0"), "MLflow cannot read it (UnicodeDecodeError"),
    "a list": (holding("meta.yaml", b"- a"), "MLflow cannot read it"),
    "other keys": (holding("meta.yaml", b"a: 1"), "MLflow cannot read it (KeyError"),
    "a folder for meta.yaml": (lambda run: [(run / "meta.yaml").unlink(), (run / "meta.yaml").mkdir()], "no meta.yaml"),
    "words for a metric": (holding("metrics/loss", b"hello"), "Metric 'loss' is malformed"),
    "noise for a metric": (holding("metrics/loss", b"\xff\xfe\0\n"), "MLflow cannot read it"),
    "an empty metric": (holding("metrics/loss", b""), "Metric 'loss' is malformed"),
    "a torn metric": (holding("metrics/loss", b"1 0.5 0\n2"), "Metric 'loss' is malformed"),
    "a metric that leads nowhere": (lambda run: (run / "metrics/x").symlink_to("/nowhere"), "MLflow cannot read it"),
    "noise for a tag": (holding("tags/x", b"\xff\xfe"), "MLflow cannot read it"),
    "noise for an input": (holding("inputs/abc/meta.yaml", b"x"), "MLflow cannot read it"),
    "no metrics": (without("metrics"), "it has no folder metrics"),
    "no params": (without("params"), "it has no folder params"),
    "no artifacts": (without("artifacts"), "it has no folder artifacts"),
    "a file for params": (lambda run: a_file_instead(run / "params"), "it has no folder params"),
    "a file for the run": (a_file_instead, "not a folder, as a run has to be"),
    "an empty folder": (lambda run: [shutil.rmtree(run), run.mkdir()], "it has no meta.yaml"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("what", DAMAGE)
def test_the_whole_runs_come_and_the_others_are_named(folder, empty_uri, capfd, what):
    run = run_folder(folder)
    damage, why = DAMAGE[what]
    damage(run)
    words = ["sync", "--from", folder.as_uri(), "--to", empty_uri, "--experiment", "exp"]
    assert cli.main([*words, "--verify"]) == 1
    out, error = capfd.readouterr()
    assert f"{run} is left out: " in error
    assert why in error
    assert "Traceback" not in out + error
    assert "2 runs new" in out
    assert "no differences" in out
    stores = connect(empty_uri, folder.as_uri())
    assert set(brought(stores, "exp")) == {"r0", "r2"}
    assert "(RuntimeError" not in error


def test_a_mended_folder_comes_later(folder, empty_uri):
    run = run_folder(folder)
    meta = (run / "meta.yaml").read_bytes()
    (run / "meta.yaml").unlink()
    stores = connect(empty_uri, folder.as_uri())
    assert bring(stores, "exp").new == 2
    with pytest.raises(UserError, match=rf"run '{run.name}' cannot be read from {run}: it has no meta.yaml"):
        selection.find(stores.source, None, [run.name])
    (run / "meta.yaml").write_bytes(meta)
    report = bring(stores, "exp")
    assert (report.new, report.unchanged) == (1, 2)
    assert selection.find(stores.source, "exp").damaged == {}
    assert verified(stores, "exp").differences == []


def test_what_is_nested_in_a_damaged_run_comes(folder, empty_uri):
    client = mlflow.MlflowClient(folder.as_uri())
    parent = run_folder(folder)
    child = record(client, parent.parent.name, "child", client.get_run(parent.name))
    (parent / "meta.yaml").unlink()
    stores = connect(empty_uri, folder.as_uri())
    chosen = selection.find(stores.source, None, [child.info.run_id])
    assert [run.info.run_name for run in chosen.runs] == ["child"]
    assert chosen.damaged == {str(parent): "it has no meta.yaml"}


def test_other_folders_do_not_matter(folder, empty_uri, capfd):
    experiment = run_folder(folder).parent
    (experiment / "notes").mkdir()
    (experiment / "notes.txt").write_text("x")
    (folder / "77").mkdir()
    (folder / "78").mkdir()
    (folder / "78" / "meta.yaml").write_text("")
    (folder / "notes").mkdir()
    stores = connect(empty_uri, folder.as_uri())
    assert bring(stores, "exp").new == 3
    assert selection.find(stores.source, "exp").damaged == {}
    assert "Traceback" not in capfd.readouterr().err
    (experiment / "meta.yaml").unlink()
    with pytest.raises(UserError, match=rf"no experiment 'exp'.*; {experiment} could not be read: it has no meta.yaml"):
        selection.find(stores.source, "exp")


def test_a_damaged_model_is_named(folder, empty_uri):
    (meta,) = folder.glob("*/models/m-*/meta.yaml")
    meta.write_text("")
    stores = connect(empty_uri, folder.as_uri())
    chosen = selection.find(stores.source, "exp")
    assert (len(chosen.runs), chosen.models) == (3, [])
    assert chosen.damaged == {str(meta.parent): "its meta.yaml is empty"}


def test_a_damaged_target_is_refused(folder, tracking_uri):
    """A copy that cannot be read would be made again."""
    to = connect(folder.as_uri(), tracking_uri)
    assert to.target.get_experiment_by_name("exp") is not None
    run = run_folder(folder)
    (run / "meta.yaml").unlink()
    with pytest.raises(UserError, match=rf"the target is damaged: {run}: it has no meta.yaml"):
        connect(folder.as_uri(), tracking_uri)


def test_into_a_store_of_files(folder, both):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    to = connect(folder.as_uri(), stores.source_uri)
    assert bring(to, name).new == 1
    assert bring(to, name).unchanged == 1
    assert brought(to, name)["r"].data.params == run.data.params
    assert verified(to, name).differences == []
    assert "mlflow_hp.sync." not in " ".join(to.target.get_experiment_by_name(name).tags)


@pytest.mark.parametrize(
    ("uri", "whole"),
    [
        ("sqlite:///x.db", "sqlite:///{}/x.db"),
        ("sqlite:///./a/../x.db", "sqlite:///{}/x.db"),
        ("sqlite+pysqlite:///x.db?timeout=5", "sqlite+pysqlite:///{}/x.db?timeout=5"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite:///file:x.db?uri=true", "sqlite:///file:x.db?uri=true"),
        ("mlruns", "file://{}/mlruns"),
        ("./ml runs", "file://{}/ml%20runs"),
        ("file:mlruns", "file://{}/mlruns"),
        ("http://host:5000/", "http://host:5000"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("databricks", "databricks"),
    ],
)
def test_uris_become_absolute(uri, whole):
    assert absolute(uri) == whole.format(Path.cwd())
    assert absolute(absolute(uri)) == absolute(uri)


def test_relative_stores_stay_where_they_were_named(tracking_uri, other_uri, empty_uri, tmp_path, monkeypatch):
    assert Path(empty_uri.removeprefix("sqlite:///")) == tmp_path / "empty.db"
    stores = connect("sqlite:///empty.db", tracking_uri)
    assert stores.target_uri == empty_uri
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    stores.target.create_experiment("there")
    assert list(Path.cwd().iterdir()) == []
    with pytest.raises(UserError, match="no tracking store"):
        connect(other_uri, "sqlite:///empty.db")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with pytest.raises(UserError, match="no tracking store"):
        connect(other_uri, "mlruns")
    assert list(Path.cwd().iterdir()) == []
