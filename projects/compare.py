"""Report that compares existing runs, of any experiments and authors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import artifact_paths
from projects import arguments
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from projects.arguments import Settings

PARAMETERS = [
    Parameter("runs", "none", arguments.optional(str), "ids of runs, comma-separated, each with those nested in it",
              several=False),
    Parameter("experiment", "none", arguments.optional(str), "name of an experiment, all runs of which are compared; "
              "none: that of the runs, or without any the active one",
              several=False),
    Parameter("filter", "none", arguments.optional(str), "which runs of the experiment, in MLflow's search syntax",
              several=False),
    Parameter("by", "none", arguments.optional(str), "group the runs by author, param or tag: a colour and a row of "
              "the leaderboard each; none: no groups", several=False),
    Parameter("metric", "none", arguments.optional(str), "metric that ranks the runs; none: the usual one for each "
              "kind of run", several=False),
    Parameter("goal", "none", arguments.optional(arguments.one_of(lambda: ["min", "max"])),
              "which values of the metric are better, min or max; none: derived from its name", several=False),
    Parameter("judge", "auto", arguments.one_of(lambda: ["auto", "best", "last"]),
              "epoch by which each run is judged, its best or its last; auto: that of the model that it has kept",
              several=False),
]  # fmt: skip
MOST_NAMED = 5
"""Experiments that an error names."""
QUESTION = "What differs between the runs, which differences are real, and what matters?"


def check(settings: Settings) -> list[str]:
    """Check that there are runs to compare.

    Returns
    -------
    list of str
        Nothing to say.

    Raises
    ------
    UserError
        If a run or the experiment does not exist, or nothing matches.
    """
    import mlflow

    from mlflow_hp.compare import gather, open_source

    client = mlflow.MlflowClient()
    run_ids, experiment = _run_ids(settings), settings["experiment"]
    if not run_ids and not experiment:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _name_by_id(client)
    active = client.get_experiment_by_name(experiment) if experiment else None
    if experiment and active is None:
        others = client.search_experiments(max_results=MOST_NAMED + 1)  # the newest first
        names = ", ".join(repr(other.name) for other in others[:MOST_NAMED])
        more = " and others" if len(others) > MOST_NAMED else ""
        raise UserError(f"there is no experiment {experiment!r}: the store has {names}{more}")
    ids = [] if active is None else [active.experiment_id]
    active_run = mlflow.active_run()  # that of the comparison, if `mlflow run` has started it
    own = active_run.info.run_id if active_run else None
    facts = gather(open_source(client), run_ids, ids, settings["filter"] or "", folds=False)
    if all(run.run_id == own or run.kind == EXPERIMENT.kind for run in facts):
        matching = f" that match {settings['filter']!r}" if settings["filter"] else " yet"
        lack = (
            f"the experiment {experiment!r} has no runs{matching}" if experiment else "no run but comparisons is named"
        )
        raise UserError(
            f"nothing to compare: {lack}; record some (`mlflow run . --env-manager local`), or name another experiment "
            "with -P experiment=NAME, or runs with -P runs=ID,ID"
        )
    return []


def _name_by_id(client: Any) -> str:
    """Name of the experiment in which runs are started, by MLFLOW_EXPERIMENT_ID."""
    return str(client.get_experiment(os.environ.get("MLFLOW_EXPERIMENT_ID") or "0").name)


def _run_ids(settings: Settings) -> list[str]:
    return [part.strip() for part in (settings["runs"] or "").split(",") if part.strip()]


def train(settings: Settings, command: str) -> Outcome:
    """Compare into the active run."""
    import mlflow

    from mlflow_hp.compare import compare_runs

    active_run = mlflow.active_run()
    run_id = active_run.info.run_id
    if not settings["runs"] and not settings["experiment"]:
        settings = {**settings, "experiment": mlflow.get_experiment(active_run.info.experiment_id).name}
    comparison = compare_runs(
        _run_ids(settings),
        experiments=[settings["experiment"]] if settings["experiment"] else [],
        filter_string=settings["filter"] or "",
        metric=settings["metric"],
        goal=settings["goal"],
        by=settings["by"],
        judge=settings["judge"],
        into=run_id,
        command=command,
    )
    report = artifact_paths.COMPARISON_FILE
    sentences = [*comparison.summary, f"The report is the artifact {report} of run {run_id}."]
    return Outcome(run_id, {"runs": float(comparison.n_runs)}, sentences, None)


EXPERIMENT = Experiment("compare", QUESTION, PARAMETERS, train, kind="comparison", check=check,
                        discards_refused=True)  # fmt: skip

if __name__ == "__main__":
    main(EXPERIMENT)
