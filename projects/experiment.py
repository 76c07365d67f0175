"""Experiments, and code that their programs share: run status, quiet libraries, the command that repeats them."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.delivery import held
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import artifact_paths, masked, tags
from projects import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow_hp.analysis import Finding
    from projects.arguments import Parameter, Settings

TELLING = ("learning_rate",)
"""Parameters in the name of a run with the default settings."""


class Outcome(NamedTuple):
    """Result of one training, for the comparison with others.

    Attributes
    ----------
    run_id : str
        Run of the training.
    numbers : dict of str to float
        Columns of the table of all combinations; the experiment's objective is one of them.
    findings : list of str
        Findings in sentences, for the terminal.
    record : Any
        Data for the experiment's pictures of several trainings.
    judged_by : str
        Epoch that the numbers are of, in words. Defaults to ``""``, for numbers that are not of an epoch.
    advice : sequence of Finding
        Findings with the changes that they propose, the most important first. Defaults to none.
    words : mapping of str to str
        Columns of text in the table of all combinations. Defaults to none.
    status : str
        Status of the run. Defaults to FINISHED; KILLED if it is left to be resumed.
    """

    run_id: str
    numbers: dict[str, float]
    findings: list[str]
    record: Any
    judged_by: str = ""
    advice: Sequence[Finding] = ()
    words: Mapping[str, str] = MappingProxyType({})
    status: str = "FINISHED"


class Experiment(NamedTuple):
    """Entry point of MLproject.

    Attributes
    ----------
    name : str
        As in MLproject.
    question : str
        Question that it answers.
    parameters : sequence of Parameter
        Parameters that it takes.
    train : callable
        ``train(settings, command) -> Outcome``: trains once into the active run, and reports.
    compare : callable
        ``compare(run_id, outcomes) -> list of str``: draws several, label -> Outcome, on the parent run, and
        returns their common findings in sentences (of markdown).
    objective : str
        Entry of ``Outcome.numbers`` whose lowest value is the best.
    kind : {"training", "search", "atlas"}
        Kind of run that one call of `train` records; the tag ``mlflow_hp.kind``.
    compare_improved : callable, optional
        The same as `compare`, for trainings of an improvement. Defaults to `compare`.
    stepwise : bool
        Whether an improvement tries a learning rate alone before the changes that belong to it, to show what it does.
        Defaults to False.
    improvement_objective : str
        Entry of ``Outcome.numbers`` by which the trainings of an improvement are compared; one that has none is worse
        than all that have it. Defaults to ``""``: the `objective`.
    improves_itself : bool
        Whether `train` follows the advice itself, in its own run, as a search does after it. Defaults to False: each
        training of an improvement is a nested run.
    check : callable, optional
        ``check(settings) -> list of str``: refuses data before a run begins, by a UserError, and returns what was
        decided about them, in sentences. Defaults to one that refuses nothing.
    discards_refused : bool
        Whether the run that `mlflow run` has started is deleted if `check` refuses. Defaults to False: it stays,
        FAILED, and says why.
    picture : str
        Picture of several trainings to look at first, by its name. Defaults to "loss_by_epoch".

    An experiment without a parameter that takes several values needs neither `compare` nor `objective`.
    """

    name: str
    question: str
    parameters: Sequence[Parameter]
    train: Callable[[Settings, str], Outcome]
    compare: Callable[[str, dict[str, Outcome]], list[str]] = lambda *_: []
    objective: str = ""
    kind: str = "training"
    compare_improved: Callable[[str, dict[str, Outcome]], list[str]] | None = None
    stepwise: bool = False
    improvement_objective: str = ""
    improves_itself: bool = False
    check: Callable[[Settings], list[str]] = lambda _: []
    discards_refused: bool = False
    picture: str = "loss_by_epoch"


@contextlib.contextmanager
def ending(run_id: str) -> Iterator[None]:
    """End a run with its true status after the block: FINISHED, FAILED with the reason, or KILLED."""
    import mlflow

    status = "FINISHED"
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with held():
            _record_error(run_id, error)
        raise
    finally:
        with held():
            if mlflow.active_run() and mlflow.active_run().info.run_id == run_id:
                mlflow.end_run(status)


def _record_error(run_id: str, error: BaseException) -> None:
    """Record in a run why it ended; ignores errors, since the store itself may have failed."""
    import mlflow

    from mlflow_hp.tracking import runs

    client = mlflow.MlflowClient()
    with contextlib.suppress(Exception):
        runs.set_tags(run_id, {tags.ERROR_TAG: f"{type(error).__name__}: {error}"})
    with contextlib.suppress(Exception):
        if isinstance(error, UserError):
            if tags.DESCRIPTION_TAG not in client.get_run(run_id).data.tags:
                runs.set_description(run_id, f"**Bad input**: {error}")
        elif not isinstance(error, KeyboardInterrupt):
            client.log_text(run_id, masked("".join(traceback.format_exception(error))), artifact_paths.TRACEBACK_FILE)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide messages of libraries that are imported in the block; they are shown if it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _hush()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        terminal = os.dup(2)
    except OSError:  # no stderr
        yield
        return
    with tempfile.TemporaryFile() as captured:
        sys.stderr.flush()
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(terminal, 2)
            captured.seek(0)
            sys.stderr.write(captured.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
    _hush()  # again: MLflow sets its own level when it is imported


def _hush() -> None:
    for name in ("mlflow", "alembic", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def command(experiment: Experiment, settings: Mapping[str, Any]) -> str:
    """Command that repeats a training; it has the settings that differ from the defaults."""
    texts = {name: arguments.text_of(value) for name, value in settings.items()}
    defaults = {p.name: arguments.default_texts(p) for p in experiment.parameters}
    options = [f"-P {shlex.quote(f'{k}={v}')}" for k, v in texts.items() if v not in defaults[k]]
    return " ".join(["mlflow run . -e", experiment.name, "--env-manager local", *options])


def run_name(experiment: Experiment, texts: Mapping[str, str]) -> str:
    """Name of a run: the experiment, and its settings, those first that differ from the defaults."""
    from mlflow_hp.tracking import run_presentation

    changed = {
        parameter.name: texts[parameter.name]
        for parameter in experiment.parameters
        if parameter.name in texts and texts[parameter.name] not in arguments.default_texts(parameter)
    }
    telling = {name: texts[name] for name in TELLING if texts.get(name, "none") != "none"}
    return run_presentation.run_name(experiment.name, changed or telling)


def first_line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
