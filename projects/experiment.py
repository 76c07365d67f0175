"""How every experiment runs: its run adopted or started, its arguments checked, one training or several, a true end."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from mlflow_hp.errors import UserError
from mlflow_hp.interrupts import held
from mlflow_hp.masking import masked
from mlflow_hp.terminal import say
from projects import arguments, stopping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from projects.arguments import Parameter, Settings

EXIT_BAD_INPUT, EXIT_FAILED, EXIT_KILLED = 2, 1, 130


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


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> NoReturn:
    """Run an experiment as a program: end with status 0, 1 (failed), 2 (bad input) or 130 (interrupted)."""
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # a line for the user, not for its programmer
    raise SystemExit(run(experiment, argv))


def run(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Run an experiment, and give the program's exit status. Errors are a line or two on stderr."""
    written = arguments.parse(argv, experiment.parameters, experiment.question)
    given = os.environ.get("MLFLOW_RUN_ID")  # by `mlflow run`, which has named its run
    try:
        with stopping.listening():
            with quiet():
                import mlflow

                from mlflow_hp import runs
            runs.ensure_reachable()
            with mlflow.start_run(run_name=None if given else experiment.name) as active, ending(active.info.run_id):
                _run_in(experiment, written, active)
    except UserError as error:
        say(f"{experiment.name}: {masked(str(error))}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say(f"{experiment.name}: interrupted; what was recorded up to now is in the run", file=sys.stderr)
        if given:
            stopping.keep_killed(given)
        return EXIT_KILLED
    except Exception as error:  # noqa: BLE001 - the traceback is in the run
        say(f"{experiment.name}: {type(error).__name__}: {masked(first_line(error))}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _run_in(experiment: Experiment, written: dict[str, str], active: Any) -> None:

    from mlflow_hp import runs
    from projects.sweep import sweep

    with quiet():
        import keras  # noqa: F401 - it takes seconds, and says things that no newcomer needs
    chosen = arguments.combinations(written, experiment.parameters)
    several = len(chosen) > 1
    tags = runs.run_tags("sweep" if several else experiment.kind, experiment=experiment.name)
    runs.log_once(active, tags=tags)
    runs.log_code(active.info.run_id)
    if several:
        runs.log_once(active, params=written)
        told = sweep(experiment, chosen, active, command(experiment, written))
    else:
        runs.log_once(active, params={name: arguments.shown(value) for name, value in chosen[0].items()})
        told = experiment.train(chosen[0], command(experiment, chosen[0])).told
    say("", *told, "")
    say(f"Look at it: mlflow ui --backend-store-uri {_shown_store()}   (run {active.info.run_id})")


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

    from mlflow_hp import runs

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


def _shown_store() -> str:
    import mlflow

    return shlex.quote(mlflow.get_tracking_uri())
