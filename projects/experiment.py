"""What an experiment is, and what its programs share: a true end, quiet libraries, the command that repeats it."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.delivery import held
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked
from projects import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projects.arguments import Parameter, Settings


class Outcome(NamedTuple):
    """What one training gives for the comparison with others.

    Attributes
    ----------
    run_id : str
        Its run.
    numbers : dict of str to float
        The columns of the table of all combinations; the experiment's objective is among them.
    told : list of str
        What was found, in sentences, for the terminal.
    record : Any
        What the experiment's pictures of several trainings need.
    """

    run_id: str
    numbers: dict[str, float]
    told: list[str]
    record: Any


class Experiment(NamedTuple):
    """One entry point.

    Attributes
    ----------
    name : str
        As in MLproject.
    question : str
        What it answers.
    parameters : sequence of Parameter
        What it takes.
    train : callable
        ``train(settings, command) -> Outcome``: one training into the active run, reported.
    compare : callable
        ``compare(run_id, outcomes) -> list of str``: pictures of several, label -> Outcome, on the parent run, and
        what they show together, in sentences (of markdown).
    objective : str
        The entry of ``Outcome.numbers`` of which the lowest is the best.
    kind : {"training", "search"}
        What one call of `train` records; the tag ``mlflow_hp.kind``.

    An experiment of which no parameter takes several values needs neither `compare` nor `objective`.
    """

    name: str
    question: str
    parameters: Sequence[Parameter]
    train: Callable[[Settings, str], Outcome]
    compare: Callable[[str, dict[str, Outcome]], list[str]] = lambda *_: []
    objective: str = ""
    kind: str = "training"


@contextlib.contextmanager
def ending(run_id: str) -> Iterator[None]:
    """Give a run its true end whatever happens in the block: FAILED with the reason, or KILLED."""
    import mlflow

    status = "FINISHED"
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        with held():
            _tell(run_id, error)
        raise
    finally:
        with held():
            if mlflow.active_run() and mlflow.active_run().info.run_id == run_id:
                mlflow.end_run(status)


def _tell(run_id: str, error: BaseException) -> None:
    """Note in a run why it ended; the store itself may be what failed."""
    import mlflow

    from mlflow_hp.tracking import runs

    client = mlflow.MlflowClient()
    with contextlib.suppress(Exception):
        runs.set_tags(run_id, {"mlflow_hp.error": f"{type(error).__name__}: {error}"})
    with contextlib.suppress(Exception):
        if isinstance(error, UserError):
            if "mlflow.note.content" not in client.get_run(run_id).data.tags:
                runs.set_description(run_id, f"**Bad input**: {error}")
        elif not isinstance(error, KeyboardInterrupt):
            client.log_text(run_id, masked("".join(traceback.format_exception(error))), "error/traceback.txt")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what libraries say while they load from the terminal; it is shown where loading fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    _hush()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        terminal = os.dup(2)
    except OSError:  # no stderr to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(terminal, 2)
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace"))
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
    """The command that repeats a training with `settings`, values or texts: what differs from the defaults is given."""
    given = {name: arguments.shown(value) for name, value in settings.items()}
    usual = {p.name: arguments.usual(p) for p in experiment.parameters}
    options = [f"-P {shlex.quote(f'{k}={v}')}" for k, v in given.items() if v not in usual[k]]
    return " ".join(["mlflow run . -e", experiment.name, "--env-manager local", *options])


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
