"""Runs an experiment: its run adopted or started, its arguments checked, one training or several, a true end."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say
from mlflow_hp.tracking import masked
from projects import arguments, stopping
from projects.experiment import Experiment, command, ending, first_line, quiet

if TYPE_CHECKING:
    from collections.abc import Sequence


EXIT_BAD_INPUT, EXIT_FAILED, EXIT_KILLED = 2, 1, 130


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

                from mlflow_hp.tracking import runs
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

    from mlflow_hp.tracking import runs
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


def _shown_store() -> str:
    import mlflow

    return shlex.quote(mlflow.get_tracking_uri())
