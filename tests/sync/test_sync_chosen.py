"""Which runs between which stores: named ones, an experiment, the default, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_hp.errors import UserError
from mlflow_hp.sync import selection
from mlflow_hp.sync.stores import connect
from tests.helpers.synced_runs import bring, record


def test_one_store_under_two_names(tracking_uri, tmp_path, both):
    file = Path(tracking_uri.removeprefix("sqlite:///"))
    (tmp_path / "link.db").symlink_to(file)
    with pytest.raises(UserError, match="is the source store itself"):
        connect(f"sqlite:///{tmp_path}/link.db", tracking_uri)
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    one = stores._replace(target=stores.source)
    with pytest.raises(UserError, match="name two different ones"):
        one.ensure_distinct(selection.find(one.source, name))
    stores.ensure_distinct(selection.find(stores.source, name))


def test_errors_name_what_mends_them(both, other_uri, tmp_path):
    stores, _, _ = both
    with pytest.raises(UserError, match=r"no experiment 'none'.*--experiment"):
        selection.find(stores.source, "none")
    with pytest.raises(UserError, match=r"run 'f00'.*--from"):
        selection.find(stores.source, None, ["f00"])
    with pytest.raises(UserError, match="no tracking store"):
        connect(other_uri, f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(UserError, match=r"--to nonsense://u:\*\*\*@h cannot be opened"):
        connect("nonsense://u:geheim@h", other_uri)
    with pytest.raises(UserError, match="does not answer"):
        connect("http://127.0.0.1:9", other_uri)


def test_a_deleted_experiment_is_named(both):
    stores, name, experiment = both
    record(stores.source, experiment, "r")
    stores.target.delete_experiment(stores.target.get_experiment_by_name(name).experiment_id)
    with pytest.raises(UserError, match="mlflow experiments restore"):
        bring(stores, name)


def test_the_active_experiment_is_the_default(both, monkeypatch):
    stores, name, experiment = both
    run = record(stores.source, experiment, "r")
    for variables in ({"NAME": name}, {"ID": experiment}, {"NAME": name, "ID": "0"}):
        with monkeypatch.context() as patch:
            for variable in ("NAME", "ID"):  # as an earlier mlflow.set_experiment may have left them
                patch.delenv(f"MLFLOW_EXPERIMENT_{variable}", raising=False)
            for variable, value in variables.items():
                patch.setenv(f"MLFLOW_EXPERIMENT_{variable}", value)
            assert [found.info.run_id for found in selection.find(stores.source).runs] == [run.info.run_id]
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "4711")
    with pytest.raises(UserError, match="no experiment '4711'"):
        selection.find(stores.source)
