"""Report that compares existing runs, of any experiments and authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
QUESTION = "What differs between the runs, which differences are real, and what matters?"


def train(settings: Settings, command: str) -> Outcome:
    """Compare into the active run."""
    import mlflow

    from mlflow_hp.compare import compare_runs

    active_run = mlflow.active_run()
    run_id = active_run.info.run_id
    if not settings["runs"] and not settings["experiment"]:
        settings = {**settings, "experiment": mlflow.get_experiment(active_run.info.experiment_id).name}
    comparison = compare_runs(
        [part.strip() for part in (settings["runs"] or "").split(",") if part.strip()],
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


EXPERIMENT = Experiment("compare", QUESTION, PARAMETERS, train, kind="comparison")

if __name__ == "__main__":
    main(EXPERIMENT)
