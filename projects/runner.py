"""Program of an experiment: resume or start a run, parse the arguments, train once or several times, end the run."""

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
from projects.datasets import tables
from projects.experiment import Experiment, command, ending, first_line, quiet, run_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projects.arguments import Settings

LOCAL_PAGE = "http://127.0.0.1:5000/hp/run/"
"""Page of a run at the server that `mlflow-hp ui` starts."""
UI_COMMAND = "MLFLOW_HP_UI"
"""Environment variable with the command that serves the page, where the caller has one of its own (``make ui``)."""
EXIT_BAD_INPUT, EXIT_FAILED, EXIT_KILLED = 2, 1, 130


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> NoReturn:
    """Run an experiment as a program: end with status 0, 1 (failed), 2 (bad input) or 130 (interrupted)."""
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # a line for users, not for programmers
    raise SystemExit(run(experiment, argv))


def run(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Run an experiment, and return the program's exit status. Errors are a line or two on stderr."""
    texts = arguments.parse(argv, experiment.parameters, experiment.question)
    run_id = os.environ.get("MLFLOW_RUN_ID")  # set by `mlflow run`, which has started the run
    is_checked = False
    try:
        with stopping.listening(), tables.remembered():
            with quiet():
                import mlflow

                from mlflow_hp.tracking import runs
            runs.ensure_reachable()
            if not run_id:
                _check(experiment, texts)
            with quiet():  # names of optimizers, which differ from the defaults or not, are Keras'
                name = run_name(experiment, texts)
            with (
                mlflow.start_run(run_name=None if run_id else name) as active_run,
                ending(active_run.info.run_id),
            ):
                if run_id:
                    _check(experiment, texts)
                is_checked = True
                is_killed = _run_in(experiment, texts, active_run) == "KILLED"
            if run_id and is_killed:
                stopping.keep_killed(run_id)
    except UserError as error:
        say(f"{experiment.name}: {masked(str(error))}", file=sys.stderr)
        if run_id and not is_checked and experiment.discards_refused:
            stopping.discard(run_id)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say(f"{experiment.name}: interrupted; the recording up to now is in the run", file=sys.stderr)
        if run_id:
            stopping.keep_killed(run_id)
        return EXIT_KILLED
    except Exception as error:  # noqa: BLE001 - the traceback is in the run
        say(f"{experiment.name}: {type(error).__name__}: {masked(first_line(error))}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def _check(experiment: Experiment, texts: dict[str, str]) -> None:
    """Refuse bad data before the training, and say what was decided about them.

    Of several combinations, one that can be trained is enough: the others fail in runs of their own. Values that cannot
    be read are refused later, in a run.
    """
    with quiet():
        import keras  # noqa: F401 - reading names of optimizers imports it, which prints messages
    try:
        combinations = arguments.combinations(texts, experiment.parameters)
    except UserError:
        return
    errors = []
    for settings in combinations:
        try:
            say(*experiment.check(settings))
        except UserError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _run_in(experiment: Experiment, texts: dict[str, str], active_run: Any) -> str:
    """Train in the active run, and return the status of that run."""
    from mlflow_hp.tracking import run_presentation, runs, tags
    from projects.improving import improve
    from projects.sweep import sweep

    with quiet():
        import keras  # noqa: F401 - importing takes seconds, and prints messages
    combinations = arguments.combinations(texts, experiment.parameters)
    is_sweep = len(combinations) > 1
    improves = _improves(experiment, texts, combinations)
    status, kind = "FINISHED", "sweep" if is_sweep else "improvement" if improves else experiment.kind
    runs.log_once(active_run, tags=runs.run_tags(kind, {tags.EXPERIMENT_TAG: experiment.name}))
    runs.log_code(active_run.info.run_id)
    run_presentation.present(active_run.info.run_id, run_name(experiment, texts))
    if is_sweep:
        runs.log_once(active_run, params=texts)
        if arguments.IMPROVE.name in combinations[0]:
            combinations = [{**settings, arguments.IMPROVE.name: 0} for settings in combinations]
        findings = sweep(experiment, combinations, active_run, command(experiment, texts))
    else:
        (settings,) = combinations
        runs.log_once(active_run, params={name: arguments.text_of(value) for name, value in settings.items()})
    if improves:
        findings = improve(experiment, settings, active_run, command(experiment, settings))
    elif not is_sweep:
        outcome = experiment.train(settings, command(experiment, settings))
        findings = outcome.findings
        status = outcome.status if outcome.run_id == active_run.info.run_id else status
    say("", *findings, "")
    say(*where_to_look(active_run.info.run_id))
    return status


def _improves(experiment: Experiment, texts: dict[str, str], combinations: list[Settings]) -> bool:
    """Whether advice is to be followed here: by default not if there are several values, which are compared instead."""
    name = arguments.IMPROVE.name
    if experiment.improves_itself:
        return False
    if not combinations[0].get(name, 0) or len(combinations) == 1:
        return bool(combinations[0].get(name, 0))
    defaults = next(parameter.default for parameter in experiment.parameters if parameter.name == name)
    if texts[name] == defaults:
        return False
    raise UserError(
        f"{name}={texts[name]}: advice is followed from one value of each parameter, and "
        f"{', '.join(arguments.varying_names(combinations))} has several; give one of each, or {name}=0"
    )


def where_to_look(run_id: str) -> list[str]:
    """Address of the page of a run, and the command that serves it, where no server does."""
    import mlflow

    from mlflow_hp.tracking import page_address

    address, uri = page_address(run_id), mlflow.get_tracking_uri()
    if address is not None:
        return [f"Look at it: {address}   (run {run_id})"]
    if uri.startswith(("http://", "https://")):
        return [f"Look at it: mlflow-hp show {run_id}   (run {run_id})"]
    command = os.environ.get(UI_COMMAND) or f"mlflow-hp ui --store {shlex.quote(masked(uri))}"
    return [f"Look at it: {command}", f"            then {LOCAL_PAGE}{run_id}   (run {run_id})"]
