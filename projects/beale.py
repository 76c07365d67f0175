"""SciPy's minimisers and Keras' optimizers from one start, on Beale's function."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths, tags
from projects import arguments, captions, minimisers
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import main

if TYPE_CHECKING:
    from mlflow_hp.analysis import BealeSurface, Finding, diagnosis
    from mlflow_hp.plots import SurfaceInfo
    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.minimisers import Ending

MOST_ITERATIONS = 100_000
PARAMETERS = [
    Parameter("method", ",".join(minimisers.METHODS), arguments.one_of(lambda: list(minimisers.METHODS)), "minimiser"),
    Parameter("x", "4", arguments.number(-1000, 1000), "x of the start"),
    Parameter("y", "4", arguments.number(-1000, 1000), "y of the start"),
    Parameter("bound", "4.5", arguments.number(0, open_low=True),
              "of a bounded method, and of the picture: from -bound to bound"),
    Parameter("iterations", "2000", arguments.whole(1, MOST_ITERATIONS),
              "the most that an optimizer of Keras may take"),
    Parameter("learning_rate", "none", arguments.optional(arguments.number(0, open_low=True)),
              "of an optimizer of Keras; none: one that suits it from (4, 4)"),
    Parameter("animate", "true", arguments.flag, "make an animation of the paths", several=False),
    arguments.IMPROVE,
]  # fmt: skip
QUESTION = "Which minimisers find the lowest point of Beale's function, by which paths, and at what cost?"

REACHED, NEAR = 1e-4, 1e-2
"""Largest distances to the minimum at which it counts as reached, and as nearly reached."""
FLAT_COST = 0.452
"""Limit of f next to y = 1 as x grows without end: min over t of the sum of (c_k + k t)^2, with t = x (y - 1)."""
MAX_LOGGED = 10_000
"""Points of a path that are logged as metrics; a longer path is downsampled. The file path.csv has all points."""
MOST_IN_ONE = 7
"""Paths in one picture; more are drawn by family of methods, a panel each."""
MOST_NAMED = 3
"""Methods that a sentence names; the table has all."""
LOWEST_DRAWN = 1e-30
"""Lower values are drawn at this height: a logarithmic axis has no 0."""
MAX_DRAWN = 1e6
"""Ratio to the highest start up to which curves are drawn: SLSQP's first step goes to f = 1e39."""
REACHED_IT, NEARLY, FLAT, DIVERGED, ELSEWHERE = (
    "reached the minimum", "came near the minimum", "is in the flat valley", "diverged", "ended elsewhere"
)  # fmt: skip
MORE_ITERATIONS = 5
"""Factor of the iterations of a path that goes straight on: 94 % of 197 paths that Keras' optimizers took from six
starts at five learning rates ended nearer to the minimum; three times the rate did for 61 %, and others diverged."""
LOWER_RATE = 3
"""Divisor of a learning rate whose steps go back and forth: 67 % of 51 paths ended nearer."""
FIRST_STEP = 0.1
"""Length of the first step, as a share of the distance of the start from the origin (at least 1), that the rate of a
path that diverged is lowered to, and to a third at most: of 59 that diverged, 59 did not any more after this once, 23
after a third three times."""
NEARER_START = 4
"""Divisor of x and y of a start that led elsewhere: 91 % of 88 paths of SciPy's methods, and 90 % of 50 of Keras', then
ended nearer; 57 % and 78 % from half of x and y."""
LAST_STEPS = 100
"""Number of steps at the end that tell how a path goes on."""
STRAIGHT = 0.5
"""Least ratio of the way that these steps lead to the sum of their lengths, of a path that goes straight on."""


class Descent(NamedTuple):
    """Path of a method: x, y, f and gradient_norm, each (iterations + 1,); its ending, and the finding about it."""

    columns: dict[str, np.ndarray]
    ending: Ending
    finding: Finding
    settings: Settings

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return len(self.columns["x"]) - 1

    @property
    def end(self) -> dict[str, float]:
        """Last value of each column."""
        return {name: float(values[-1]) for name, values in self.columns.items()}


def train(settings: Settings, command: str) -> Outcome:
    """Minimise by one method into the active run, and report; if interrupted, log the path up to there."""
    import mlflow

    from mlflow_hp.analysis import BealeSurface
    from mlflow_hp.delivery import held
    from projects.recorded import after_interrupt

    active_run, surface = mlflow.active_run(), BealeSurface()
    points = [np.array([settings["x"], settings["y"]])]
    try:
        ending = minimisers.minimise(
            settings["method"], surface, points, **{k: settings[k] for k in ("bound", "iterations", "learning_rate")}
        )
    except KeyboardInterrupt:
        with held("logging the path up to here"), after_interrupt():
            log_path(active_run.info.run_id, columns_of(surface, points))
        raise
    with held("finishing the report"):
        columns = columns_of(surface, points)
        descent = Descent(columns, ending, judge(settings, columns, ending), settings)
        animate = settings["animate"] and tags.PARENT_TAG not in active_run.data.tags  # else in the parent's
        return _report(active_run.info.run_id, descent, command, animate=animate)


def compare(run_id: str, outcomes: dict[str, Outcome]) -> list[str]:
    """Draw all paths in one picture, and f of all by iteration; return findings."""
    from mlflow_hp.plots import surface as surface_plots
    from mlflow_hp.plots import surface_animation
    from mlflow_hp.training import Report

    descents = {label.removeprefix("method="): outcome.record for label, outcome in outcomes.items()}
    with Report(run_id, captions.caption([descent.settings for descent in descents.values()])) as report:
        info = _surface_info(descents)
        report.picture("paths", surface_plots.draw_surface(info))
        _curves(report, descents, "f")
        if next(iter(descents.values())).settings["animate"]:
            file = report.file(f"{artifact_paths.PLOTS_FOLDER}/paths.gif")
            surface_animation.animate_surface(info, file, subtitle=report.subtitle())
    return findings(descents)


def findings(descents: dict[str, Descent]) -> list[str]:
    """Count several methods by how they ended, in markdown, and name the cheapest of each; the table has all."""
    groups: dict[str, list[str]] = {}
    for label in sorted(descents, key=lambda label: descents[label].ending.evaluations):
        groups.setdefault(descents[label].finding.verdict, []).append(label)
    meanings = {
        REACHED_IT: f"Reached the minimum within {REACHED:g}",
        NEARLY: f"Came within {NEAR:g} of it",
        FLAT: f"Lost in the flat valley along y = 1, where f falls only towards {FLAT_COST} as x grows without end",
        ELSEWHERE: "Ended elsewhere",
        DIVERGED: "Diverged",
    }
    return [
        f"**{meaning}**: {_named(verdict, groups[verdict], descents)}."
        for verdict, meaning in meanings.items()
        if verdict in groups
    ]


def _named(verdict: str, labels: list[str], descents: dict[str, Descent]) -> str:
    """Name up to `MOST_NAMED` methods with their cost; of more, the cheapest."""

    def describe(label: str) -> str:
        descent = descents[label]
        diverged = verdict == DIVERGED
        cost = count(descent.iterations, "iteration") if diverged else count(descent.ending.evaluations, "evaluation")
        return f"{label} ({cost}{', which it calls a success' if label in claiming else ''})"

    claiming = [label for label in labels if descents[label].ending.success and verdict in (FLAT, ELSEWHERE)]
    if len(labels) <= MOST_NAMED:
        return ", ".join(map(describe, labels))
    claims = f"; {len(claiming)} call it a success" if len(claiming) > 1 else ""
    return f"{len(labels)} of {len(descents)} methods, the cheapest of them {describe(labels[0])}{claims}"


def columns_of(surface: BealeSurface, points: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Make the columns of a `Descent` from its points."""
    x, y = np.array(points).T
    with np.errstate(over="ignore"):
        return {"x": x, "y": y, "f": surface.cost(x, y), "gradient_norm": np.hypot(*surface.gradient(x, y))}


def judge(settings: Settings, columns: dict[str, np.ndarray], ending: Ending) -> Finding:
    """Judge the ending of a path, and propose what to change."""
    from mlflow_hp.analysis import BealeSurface, Finding

    best = BealeSurface.minimum
    x, y, f, slope = (float(values[-1]) for values in columns.values())
    distance = float(np.hypot(x - best.x, y - best.y))
    iterations = len(columns["x"]) - 1
    at = f"after {count(iterations, 'iteration')} it is at ({x:.6g}, {y:.6g}), {distance:.2g} from "
    at += f"({best.x:g}, {best.y:g})"
    if not np.isfinite([f, slope]).all():
        verdict, distance = DIVERGED, float("inf")
        at = f"f or its gradient was not finite after {count(iterations, 'iteration')}"
    elif distance < NEAR:
        verdict = REACHED_IT if distance < REACHED else NEARLY
    elif abs(x) > 10 and abs(y - 1) < 0.1:
        verdict = FLAT
        at += f"; f = {f:.3g} falls there only towards {FLAT_COST}, ever more slowly, as x grows without end"
    else:
        verdict = ELSEWHERE
        at += f", where f = {f:.3g} and the gradient's norm is {slope:.2g}"
    evidence = {"distance": distance, "x": x, "y": y, "f": f, "gradient_norm": slope, "success": ending.success}
    suggestion, change = (None, ()) if verdict == REACHED_IT else _advice(settings, columns, ending, verdict)
    return Finding(
        "ending",
        verdict,
        f"{at}. {settings['method']} says: {ending.message.rstrip('.')}.",
        evidence,
        suggestion,
        severity="fine" if verdict == REACHED_IT else "problem",
        change=change,
    )


def _advice(
    settings: Settings, columns: dict[str, np.ndarray], ending: Ending, verdict: str
) -> tuple[str | None, tuple[diagnosis.Change, ...]]:
    """Propose what to change, in words and for programs, so that a path ends nearer to the minimum."""
    from mlflow_hp.analysis import diagnosis

    spec = minimisers.METHODS[settings["method"]]
    if isinstance(spec, minimisers.KerasMethod) and not ending.success and verdict != FLAT:
        if verdict == DIVERGED or not _goes_on(columns):
            rate = settings["learning_rate"] or spec.learning_rate
            lower = float(f"{rate * _lower_by(columns, verdict):.2g}")
            why = "the steps grow beyond all bounds" if verdict == DIVERGED else "the steps go back and forth"
            return f"learning_rate={lower:g}: {why}", (diagnosis.Change("learning_rate", rate, lower),)
        if _approaches(columns):
            more = min(MORE_ITERATIONS * settings["iterations"], MOST_ITERATIONS)
            change = diagnosis.Change("iterations", settings["iterations"], more)
            return f"iterations={more}: the path goes straight on", (change,)
    if verdict in (FLAT, ELSEWHERE) and (settings["x"] or settings["y"]):
        nearer = {name: settings[name] / NEARER_START for name in ("x", "y")}
        text = f"a start nearer to the origin, x={nearer['x']:g} and y={nearer['y']:g}"
        return text, tuple(diagnosis.Change(name, settings[name], value) for name, value in nearer.items())
    return None, ()


def _lower_by(columns: dict[str, np.ndarray], verdict: str) -> float:
    """Return the factor of a lower rate: a third; of a path that diverged, what makes its first step a short one."""
    x, y = columns["x"], columns["y"]
    first_step = float(np.hypot(x[1] - x[0], y[1] - y[0])) if len(x) > 1 else 0.0
    if verdict != DIVERGED or not 0 < first_step < np.inf:
        return 1 / LOWER_RATE
    return min(1 / LOWER_RATE, FIRST_STEP * max(float(np.hypot(x[0], y[0])), 1.0) / first_step)


def _goes_on(columns: dict[str, np.ndarray]) -> bool:
    """Return whether the last steps lead somewhere, instead of back and forth."""
    x, y = (np.diff(columns[name][-LAST_STEPS - 1 :]) for name in ("x", "y"))
    return bool(np.hypot(x.sum(), y.sum()) >= STRAIGHT * np.hypot(x, y).sum())


def _approaches(columns: dict[str, np.ndarray]) -> bool:
    """Return whether the last steps lead nearer to the minimum."""
    from mlflow_hp.analysis import BealeSurface

    best = BealeSurface.minimum
    distances = np.hypot(columns["x"] - best.x, columns["y"] - best.y)[-LAST_STEPS - 1 :]
    return bool(distances[-1] < distances[0])


def log_path(run_id: str, columns: dict[str, np.ndarray]) -> None:
    """Log each column as a metric, step = iteration, in full batches."""
    import mlflow
    from mlflow.entities import Metric

    from mlflow_hp.analysis import downsample

    n, timestamp, client = len(columns["x"]), round(time.time() * 1000), mlflow.MlflowClient()
    steps = downsample(np.arange(n), *columns.values(), buckets=MAX_LOGGED // (2 * len(columns)))
    metrics = [Metric(name, float(values[i]), timestamp, int(i)) for i in steps for name, values in columns.items()]
    for first in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[first : first + 1000])


def _report(run_id: str, descent: Descent, command: str, *, animate: bool) -> Outcome:
    """Log numbers and description, then artifacts, whose store may fail."""
    import pandas as pd

    from mlflow_hp.analysis import diagnosis
    from mlflow_hp.plots import surface as surface_plots
    from mlflow_hp.plots import surface_animation
    from mlflow_hp.tracking import runs
    from mlflow_hp.training import Report
    from projects.recorded import look_at

    settings, ending, finding = descent.settings, descent.ending, descent.finding
    method = settings["method"]
    log_path(run_id, descent.columns)
    counts = {"nfev": ending.nfev, "njev": ending.njev, "nhev": ending.nhev, "iterations": descent.iterations}
    numbers = {tags.DISTANCE_METRIC: finding.evidence["distance"], **counts, "success": float(ending.success)}
    runs.log_numbers(run_id, numbers)
    runs.set_tags(run_id, {tags.MESSAGE_TAG: ending.message, tags.VERDICT_TAG: finding.verdict})
    used = ", ".join(
        f"{name} {arguments.text_of(value)}" for name, value in settings.items() if name not in ("animate", "improve")
    )
    result = ", ".join(f"{name} {value:.6g}" for name, value in {**descent.end, **numbers}.items())
    runs.set_description(
        run_id,
        f"**{result}**\n\n{diagnosis.findings_in_words([finding])}\n\n"
        f"{look_at('path')}\n\n"
        f"**{QUESTION}**\n\n**Settings**: {used}\n\n**To repeat it**: `{command}`\n",
    )
    with Report(run_id, f"{method}, {captions.caption([settings])}") as report:
        report.findings([finding])
        pd.DataFrame(descent.columns).rename_axis("iteration").to_csv(report.file("path.csv"))
        info = _surface_info({method: descent})
        report.picture("path", surface_plots.draw_surface(info))
        for name in ("f", "gradient_norm"):
            _curves(report, {method: descent}, name)
        if animate and descent.iterations:
            file = report.file(f"{artifact_paths.PLOTS_FOLDER}/path.gif")
            surface_animation.animate_surface(info, file, subtitle=report.subtitle())
    table = {**numbers, "evaluations": ending.evaluations, **descent.end}
    return Outcome(run_id, table, [f"{method} {finding.verdict}: {finding.text}"], descent, advice=[finding],
                   words={"ended": finding.verdict})  # fmt: skip


def _surface_info(descents: dict[str, Descent]) -> SurfaceInfo:
    """Compute the picture of paths on the surface, from -bound to bound, or farther if a start lies outside."""
    from mlflow_hp.analysis import BealeSurface
    from mlflow_hp.plots import surface as surface_plots

    best = BealeSurface.minimum
    edge = max(best.x, *(max(abs(d.settings[name]) for name in ("bound", "x", "y")) for d in descents.values()))
    return surface_plots.surface_info(
        BealeSurface(),
        {label: (descent.columns["x"], descent.columns["y"]) for label, descent in descents.items()},
        ("x", "y"),
        window=((-edge, edge), (-edge, edge)),
        best=f"minimum ({best.x:g}, {best.y:g}), f",
        numbering=surface_plots.StepNumbering("iteration", 0),
        title="paths on Beale's function",
        groups=_families(descents),
    )


def _families(descents: dict[str, Descent]) -> dict[str, str] | None:
    """Family of methods of each path, where there are too many paths for one picture."""
    if len(descents) <= MOST_IN_ONE:
        return None
    return {label: minimisers.family(descent.settings["method"]) for label, descent in descents.items()}


def _curves(report: Report, descents: dict[str, Descent], name: str) -> None:
    """Draw a column of all descents by iteration, on a logarithmic axis if some take far more iterations."""
    from mlflow_hp.plots import panels, training

    columns = {label: np.maximum(descent.columns[name], LOWEST_DRAWN) for label, descent in descents.items()}
    groups = _families(descents)
    families = groups or dict.fromkeys(columns, "")
    y_label = {"f": "f(x, y)", "gradient_norm": "norm of the gradient of f"}[name]
    highest = MAX_DRAWN * max(float(values[0]) for values in columns.values())
    pictures = {
        family: training.curves_info(
            [
                training.Curve(np.arange(len(values)), np.where(values <= highest, values, np.nan), label)
                for label, values in columns.items()
                if families[label] == family
            ],
            "iteration (0: the start)",
            y_label,
            groups=groups,
        )._replace(first_not_finite=None)
        for family in dict.fromkeys(families.values())
    }
    title = f"{y_label} by iteration, on Beale's function"
    if groups is None:
        axes = training.draw_curves(pictures[""]._replace(title=title))
    else:
        axes = panels.draw_panels(panels.panels_info(pictures, title))
    lengths = [len(values) for values in columns.values()]
    if max(lengths) > 20 * min(lengths):
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, 1.1 * max(lengths))
    report.picture(f"{name}_by_iteration", axes)


EXPERIMENT = Experiment("beale", QUESTION, PARAMETERS, train, compare, "distance", picture="paths")

if __name__ == "__main__":
    main(EXPERIMENT)
