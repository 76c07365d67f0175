"""Presentation of a recorded run in MLflow's UI: its name, the kind of its experiment, the address of its page.

All of it is optional: nothing here raises, and what MLflow refuses stays as it is.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import TYPE_CHECKING

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.tracking.random_names import is_random
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable, within
from mlflow_hp.tracking.server_page import page_address
from mlflow_hp.tracking.tags import EXPERIMENT_KIND_TAG, RUN_PAGE_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow.entities import Run

MAX_LENGTH = 60
"""Longest name that a run gets, in characters."""
EXPERIMENT_KIND = "custom_model_development"
"""Value of `EXPERIMENT_KIND_TAG` for "Machine learning": MLflow's UI opens the experiment at its table of runs."""
SECONDS = 5.0
"""Longest wait for MLflow."""


class _Presented:
    """Runs and experiments of this process that need no further look, each with its tracking URI."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: set[tuple[str, str]] = set()
        abandon_in_child(self)

    def first_time(self, identifier: str, tracking_uri: str) -> bool:
        """Whether this is the first call for a run or an experiment."""
        with self._lock:
            key = (tracking_uri, identifier)
            is_first = key not in self._done
            self._done.add(key)
            return is_first

    def abandon(self) -> None:
        """In a forked child: replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()


_presented = _Presented()


def present(run_id: str, name: str, tracking_uri: str | None = None) -> None:
    """Name a run whose name is one of MLflow's random ones, tag it with its page, and its experiment with its kind.

    A name, a kind or a tag that someone else has chosen stays. A run is looked at once in a process. It takes
    `SECONDS` at most, and raises nothing.

    Parameters
    ----------
    run_id : str
        Id of the run.
    name : str
        Name of what ran, such as that of `run_name`; with ``""`` the run keeps its name.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    if _presented.first_time(run_id, uri):
        with contextlib.suppress(Exception):
            within(SECONDS, functools.partial(_present, run_id, name, uri))


def _present(run_id: str, name: str, uri: str) -> None:
    ensure_reachable(uri)
    client = mlflow.MlflowClient(uri)
    run = client.get_run(run_id)
    steps: list[Callable[[], object]] = [
        lambda: _name(client, run, name),
        lambda: mark_experiment(run.info.experiment_id, uri),
        lambda: _tag_page(client, run, uri),
    ]
    for step in steps:
        with contextlib.suppress(Exception):  # one that is refused leaves the others
            step()


def _name(client: mlflow.MlflowClient, run: Run, name: str) -> None:
    if name and is_random(run.info.run_name):
        client.update_run(run.info.run_id, name=masked(name))


def _tag_page(client: mlflow.MlflowClient, run: Run, uri: str) -> None:
    address = None if RUN_PAGE_TAG in run.data.tags else page_address(run.info.run_id, uri)
    if address is not None:
        client.set_tag(run.info.run_id, RUN_PAGE_TAG, address)


def mark_experiment(experiment_id: str, tracking_uri: str) -> None:
    """Tag an experiment as one of model training, unless it has a kind; asks MLflow once in a process.

    Without a kind, MLflow's UI guesses one from the traces and runs that it finds, or asks its user.

    Parameters
    ----------
    experiment_id : str
        Id of the experiment.
    tracking_uri : str
        Its tracking store.
    """
    if _presented.first_time(f"experiment {experiment_id}", tracking_uri):
        client = mlflow.MlflowClient(tracking_uri)
        if EXPERIMENT_KIND_TAG not in client.get_experiment(experiment_id).tags:
            client.set_experiment_tag(experiment_id, EXPERIMENT_KIND_TAG, EXPERIMENT_KIND)


def run_name(subject: str, settings: Mapping[str, object] | Sequence[tuple[str, object]] = ()) -> str:
    """Make the name of a run: what ran, and as many of its settings as fit into `MAX_LENGTH` characters.

    Parameters
    ----------
    subject : str
        What ran, such as the class of a model.
    settings : mapping of str to object, optional
        Name -> value, the most telling first. Defaults to none.

    Returns
    -------
    str
        ``subject name=value ...``, on one line.

    Examples
    --------
    >>> from mlflow_hp.tracking.run_presentation import run_name
    >>> run_name("Sequential", {"learning_rate": 0.01, "batch_size": 32})
    'Sequential learning_rate=0.01 batch_size=32'
    """
    name = _shortened(" ".join(subject.split()), MAX_LENGTH)
    for setting, value in dict(settings).items():
        longer = f"{name} {setting}={' '.join(str(value).split())}"
        if len(longer) <= MAX_LENGTH:
            name = longer
    return name


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
