"""One real store for all tests, and quiet libraries."""

from __future__ import annotations

import os
import tempfile

os.environ["MLFLOW_HP_FOLDER"] = tempfile.mkdtemp(prefix="mlflow_hp_tests_")  # nothing of a test gets into the user's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ.pop("MLFLOW_TRACKING_URI", None)

import gc
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import fast_sqlite, forked_python

fast_sqlite.install()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it


GOLDEN_RATIO = (1 + 5**0.5) / 2


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Of the combinations of a test that is sampled, mark all but the first and about each n-th as thorough.

    Multiples of the golden ratio are spread evenly, so that no value of a parameter is left out by the step.
    """
    seen: dict[str, int] = {}
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled is not None:
            number = seen.setdefault(item.nodeid.partition("[")[0], 0)
            seen[item.nodeid.partition("[")[0]] += 1
            if number * GOLDEN_RATIO % 1 >= 1 / sampled.args[0]:
                item.add_marker("thorough")


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    """A SQLite store with local artifacts, made once: its tables take seconds."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    return uri


@pytest.fixture
def store(tracking_uri, tmp_path, monkeypatch):
    """The store is MLflow's, with the experiment "tests" active and no run left from another test."""
    import mlflow

    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "on-its-way"))
    # what a developer has not committed yet is not looked for
    monkeypatch.setattr("mlflow_hp.tracking.uncommitted_code.uncommitted", lambda: None)
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.set_experiment("tests")
    client = mlflow.MlflowClient()
    yield client
    while mlflow.active_run():
        mlflow.end_run("KILLED")
    for run in client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
    mlflow.set_tracking_uri(None)


@pytest.fixture
def impatient(monkeypatch):
    """Send as soon as there is something to send, and try again soon; MLflow's client gives up on a call at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    for name, value in (
        ("time_share.FIRST_SECONDS", 0.0),
        ("metric_sender.OLDEST_SECONDS", 0.05),
        ("time_share.SHARE_OF_TIME", 0.9),
        ("search_sender.EVERY_SECONDS", 0.1),
        ("retry.LONGEST_PAUSE_SECONDS", 0.2),
    ):
        monkeypatch.setattr(f"mlflow_hp.delivery.{name}", value)


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A machine that tests keep busy, or that stands still for a while, is no server that is away."""
    monkeypatch.setattr("mlflow_hp.delivery.patience.PATIENCE_SECONDS", 30.0)


@pytest.fixture
def gives_up_soon(monkeypatch, patient):
    """At the end of a training or a search, wait a second for a server that is away; called, wait a minute again."""

    def wait(seconds):
        monkeypatch.setattr("mlflow_hp.delivery.patience.PATIENCE_SECONDS", seconds)
        monkeypatch.setattr("mlflow_hp.delivery.patience.QUICK_SECONDS", seconds / 2)

    wait(1.0)
    return lambda: wait(60.0)


@pytest.fixture
def blank_pictures(monkeypatch):
    """Files of pictures are there and empty: for tests of something else, where another test draws such pictures."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: Path(file).touch())


@pytest.fixture(scope="module", autouse=True)
def what_other_modules_have_left():
    """Is looked through for circles once, and not at each collection of garbage: that comes to take many seconds."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_of_another_test():
    """What a test has left to the end of the process does not reach the next one."""
    variables = forked_python.at_loading()
    yield
    for name in forked_python.at_loading().keys() - variables.keys():
        del os.environ[name]  # Dask sets some for its workers, and programs of later tests would be no forks
    os.environ.update(variables)
    if late_params := sys.modules.get("mlflow_hp.delivery.late_params"):
        late_params.late_params.abandon()
    if run_observer := sys.modules.get("mlflow_hp.tracking.run_observer"):
        run_observer.observer.forget()
    if config := sys.modules.get("tensorflow.python.framework.config"):
        config.disable_op_determinism()  # which scikeras turns on where it is given a random_state


@pytest.fixture
def warnings_are_errors():
    """For tests of what becomes of our warnings where the user has turned them into errors, as all tests do."""


@pytest.fixture(autouse=True)
def no_warning_in_silence(request, monkeypatch):
    """A warning of ours that no test expects fails it, although it never raises."""
    if "warnings_are_errors" in request.fixturenames:
        yield
        return
    from mlflow_hp import _notice
    from mlflow_hp.errors import RecordingWarning

    log, unexpected = _notice.log, []

    def keep(message, *words, **named):
        if sys.exc_info()[0] is RecordingWarning and threading.current_thread() is threading.main_thread():
            unexpected.append(message)
        log(message, *words, **named)

    monkeypatch.setattr(_notice, "log", keep)
    yield
    assert not unexpected
