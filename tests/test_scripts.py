"""Scripts as people write them: with one line more they train the same, bit for bit, and each step is recorded."""

from __future__ import annotations

import runpy
from pathlib import Path

import mlflow
import numpy as np
import pytest

import mlflow_hp

SCRIPTS = Path(__file__).parent / "scripts"
STEPS = {
    "plain_fit": [18],
    "two_outputs": [12],
    "own_train_step": [15],
    "gan": [12],
    "vae": [8],
    "lstm": [20],
    "fine_tuning": [10, 10],
    "pipeline": [15],
    "tuner": [4, 4],
    "study": [6, 6],
}
"""Steps of each training: rows by batch size, rounded up, times epochs."""
OWN_VALUES = {
    "two_outputs": {"batch_loss", "batch_price_loss", "batch_sold_loss", "learning_rate"},
    "gan": {"batch_d_loss", "batch_g_loss", "learning_rate/d_optimizer", "learning_rate/g_optimizer"},
    "vae": {"batch_loss", "batch_reconstruction_loss", "batch_kl_loss", "learning_rate"},
}
"""Values of each batch alone, where they are not the loss and the learning rate."""

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries that the scripts use
    pytest.mark.filterwarnings("error::mlflow_hp.RecordingWarning"),
]


@pytest.fixture
def autolog():
    mlflow_hp.autolog(report=False)
    yield
    mlflow_hp.autolog(disable=True)


def weights(name):
    """Run a script; the final weights of its models."""
    models = runpy.run_path(str(SCRIPTS / f"{name}.py"))["MODELS"]
    return [[weight.tobytes() for weight in model.get_weights()] for model in models]


@pytest.mark.sampled(12)
@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_one_line_more(request, store, name):
    if name == "tuner":
        pytest.importorskip("keras_tuner", reason="KerasTuner is not installed: pip install keras-tuner")
    bare = weights(name)
    experiment = store.get_experiment_by_name("tests")
    before = {run.info.run_id for run in store.search_runs([experiment.experiment_id], max_results=10_000)}
    request.getfixturevalue("autolog")
    assert weights(name) == bare
    found = store.search_runs([experiment.experiment_id], max_results=10_000, order_by=["attributes.start_time"])
    runs = [run for run in found if run.info.run_id not in before]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert mlflow.active_run() is None
    histories = [
        mlflow_hp.load_history(run.info.run_id, fit=fit)
        for run in runs
        for fit in range(int(run.data.tags["mlflow_hp.fits"]))
    ]
    assert [history.n_steps for history in histories] == STEPS[name]
    for history in histories:
        assert history.meta["reader"] == "graph"
        known = {name for name in history.steps if name.startswith(("batch_", "learning_rate"))}
        assert known == OWN_VALUES.get(name, {"batch_loss", "learning_rate"})
        of_two_steps = {name for name in history.steps if name.startswith("gradient_cosine")}
        assert of_two_steps
        for column, values in history.steps.items():
            assert np.isfinite(values[1:] if column in of_two_steps else values).all(), column
        assert {tensor.name for tensor in history.tensors}
        assert history.recorded in ("values", "statistics")
    for run in runs:
        assert "mlflow_hp.recording_error" not in run.data.tags
        assert store.get_run(run.info.run_id).inputs.dataset_inputs
