"""A comparison of runs that are there, of any experiments and authors, as a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from projects import arguments
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from projects.arguments import Settings

PARAMETERS = [
    Parameter("runs", "none", arguments.optional(str), "ids of runs, comma-separated, each with those nested in it",
              several=False),
    Parameter("experiment", "none", arguments.optional(str), "name of an experiment, all runs of which are compared",
              several=False),
    Parameter("filter", "none", arguments.optional(str), "which runs of the experiment, in the language of MLflow's "
              "search", several=False),
    Parameter("by", "none", arguments.optional(str), "what colours and leaderboard tell apart: author, a param or tag; "
              "none: each run", several=False),
    Parameter("metric", "none", arguments.optional(str), "by what to judge; none: what such runs are usually judged by",
              several=False),
    Parameter("goal", "none", arguments.optional(arguments.one_of(lambda: ["min", "max"])), "which values of it are "
              "better, min or max; none: told from its name", several=False),
]  # fmt: skip
QUESTION = "What differs between the runs, which differences are real, and what matters?"


def train(settings: Settings, command: str) -> Outcome:
    """Compare into the active run."""
    import mlflow

    from mlflow_hp.compare import compare_runs

    run_id = mlflow.active_run().info.run_id
    found = compare_runs(
        [part.strip() for part in (settings["runs"] or "").split(",") if part.strip()],
        experiments=[settings["experiment"]] if settings["experiment"] else [],
        filter_string=settings["filter"] or "",
        metric=settings["metric"],
        goal=settings["goal"],
        by=settings["by"],
        into=run_id,
        command=command,
    )
    told = [*found.told, f"The report is the artifact comparison.html of run {run_id}."]
    return Outcome(run_id, {"runs": float(found.n_runs)}, told, None)


EXPERIMENT = Experiment("compare", QUESTION, PARAMETERS, train, kind="comparison")

if __name__ == "__main__":
    main(EXPERIMENT)
