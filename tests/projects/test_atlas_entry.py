"""The atlas of an experiment's network: what its run holds, and what is refused."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from projects import atlas
from projects.runner import run

SMALL = ["--max_samples", "100", "--hidden", "4", "--epochs", "2", "--seeds", "2", "--n_rates", "3"]


@pytest.fixture
def go(store, capsys):
    def go(*argv, status=0):
        assert run(atlas.EXPERIMENT, [*SMALL, *argv]) == status
        experiment = store.get_experiment_by_name("tests").experiment_id
        found = mlflow.search_runs([experiment], output_format="list")[0]
        return found, capsys.readouterr()

    return go


def numbers_of(found):
    return np.load(mlflow.artifacts.download_artifacts(f"runs:/{found.info.run_id}/atlas/atlas.npz"))


def test_a_table_with_numbers_to_predict(go, store, tmp_path, monkeypatch):
    file = tmp_path / "diabetes.csv"
    load_diabetes(as_frame=True).frame.to_csv(file, index=False)
    made = store.create_run(store.get_experiment_by_name("tests").experiment_id)
    store.log_param(made.info.run_id, "seeds", "02")  # as `mlflow run` logs it
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    found, printed = go("--data", str(file), "--n_batch_sizes", "2", "--seeds", "02")
    assert (found.info.status, found.data.tags["mlflow_hp.kind"]) == ("FINISHED", "atlas")
    numbers = numbers_of(found)
    assert numbers["loss"].shape == (2, 3, 2)
    assert numbers["x"].tolist() == pytest.approx([0.001, 0.1, 10])
    assert numbers["y"].tolist() == [8, 512]  # more than there are rows: one batch
    metrics, text = found.data.metrics, found.data.tags["mlflow.note.content"]
    assert metrics["share_good"] == (numbers["outcomes"] == 1).mean()
    assert np.isfinite(metrics["lowest_val_loss"])
    assert text.startswith("**Result**: Of 12 descents ")
    assert "63 samples to train on, 16 to validate. As it was read: " in text
    assert "**To repeat it**: `mlflow run . -e atlas --env-manager local -P data=" in text
    assert "Of 12 descents " in printed.out
    names = {item.path for item in store.list_artifacts(found.info.run_id)}
    assert {"atlas.html", "plots"} <= names


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--low", "10"], "low=10 has to be less than high=10"),
        (["--batch_high", "8"], "batch_low=8 has to be less than batch_high=8"),
        (["--n_rates", "1"], "n_rates='1' has to be a whole number from 2"),
        (["--optimizer", "Lion"], "optimizer='Lion' has to be one of SGD, RMSprop, Adam, AdamW"),
    ],
)
def test_bad_input(go, argv, said):
    found, printed = go(*argv, status=2)
    assert found.info.status == "FAILED"
    assert said in printed.err
    assert printed.err.count("\n") == 1


def test_batch_sizes_that_round_to_one_are_one():
    assert atlas.batch_sizes({"batch_low": 1, "batch_high": 4, "n_batch_sizes": 10}).tolist() == [1, 2, 3, 4]
