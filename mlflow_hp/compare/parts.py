"""Sections of a comparison: an overview, and the parts of each group of comparable runs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mlflow_hp.compare.colors import colour_runs
from mlflow_hp.compare.comparability import Goal, Grouping, LeftOut, RunGroup, group_runs
from mlflow_hp.compare.curves import curves_sections
from mlflow_hp.compare.descents import descents_sections
from mlflow_hp.compare.differences import RunDifference, differences
from mlflow_hp.compare.formatting import count, has_several_authors, short
from mlflow_hp.compare.leaderboard import leaderboard_section, time_section
from mlflow_hp.compare.next_space import next_sections
from mlflow_hp.compare.parameters import importance_section
from mlflow_hp.compare.scores import scores_section
from mlflow_hp.compare.section import Cell, RunCell, Section, Table
from mlflow_hp.compare.source import PIXELS
from mlflow_hp.tracking.tags import GIT_DIRTY_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_hp.compare.judging import Judge
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import RunSource

PARTS = ("overview", "leaderboard", "scores", "differences", "importance", "next", "time", "curves", "descents")
"""Parts of a comparison, in their order."""
MAX_GROUPS = 8
"""Groups that are shown, the largest."""
MAX_LEFT_OUT = 200
"""Runs left out that are listed by name."""
MAX_VALUES = 8
"""Values of a difference that are listed, the most frequent."""


def sections(
    facts: Sequence[RunFacts],
    source: RunSource,
    *,
    metric: str | None = None,
    goal: Goal | None = None,
    by: str | None = None,
    unfinished: bool = False,
    judge: Judge = "auto",
    parts: Sequence[str] = PARTS,
    pixels: int = PIXELS,
) -> list[Section]:
    """Compare runs.

    Parameters
    ----------
    facts : sequence of RunFacts
        Runs, as `gather` returns them.
    source : RunSource
        Source of their histories.
    metric : str, optional
        Metric to rank runs by. Defaults to the usual one of each kind of run.
    goal : {"min", "max"}, optional
        Whether lower or higher values are better. Defaults to a guess from the metric's name.
    by : str, optional
        ``"author"``, ``"kind"``, ``"experiment"``, or a param or tag, by which runs are coloured and the leaderboard
        is grouped. Defaults to a colour per run, and a leaderboard by author.
    unfinished : bool
        Whether to compare running runs, too, by their latest values. Defaults to False.
    judge : {"auto", "best", "last"}
        Whether runs are judged by their best epoch or by their last; "auto" by that of the model that each has kept,
        and by the last if that is not known. Defaults to ``"auto"``.
    parts : sequence of str
        Parts to compute, of ``PARTS``. Defaults to all.
    pixels : int
        Width of curves on the screen. Defaults to ``PIXELS``.

    Returns
    -------
    list of Section
        The overview; then for each group of comparable runs, the largest first, a section of level 2 and its parts.

    Raises
    ------
    UserError
        If no run has `metric`, or for another `judge`.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.compare import gather, open_source, sections
    >>> with mlflow.start_run(tags={"mlflow_hp.data_digest": "d", "mlflow_hp.split_digest": "s"}) as run:
    ...     mlflow.log_metric("val_loss", 0.5)
    >>> source = open_source(mlflow.MlflowClient())
    >>> sections(gather(source, [run.info.run_id]), source, parts=["overview"])[0].title
    'What is compared'
    """
    grouping, names = group_runs(facts, metric, goal, unfinished=unfinished, judge=judge), _data_names(facts)
    result = [overview(facts, grouping)] if "overview" in parts else []
    for index, group in enumerate(grouping.groups[:MAX_GROUPS]):
        if set(parts) - {"overview"}:
            title = f"Group {index + 1}: {_short(group, names)}"
            result.append(Section(f"group-{index + 1}", title, 2, [_about(group)]))
        result += _of_group(group, str(index + 1), source, by, parts, pixels, grouping.left_out)
    return result


def overview(facts: Sequence[RunFacts], grouping: Grouping) -> Section:
    """Count runs and authors, and list the runs left out with the reason."""
    authors, names = Counter(run.author for run in facts), _data_names(facts)
    experiments = {run.experiment for run in facts}
    by_authors = f"{count(len(authors), 'author')} ({_first(authors)})"
    in_experiments = f"{count(len(experiments), 'experiment')} ({_first(dict.fromkeys(sorted(experiments)))})"
    words = [f"{count(len(facts), 'run')} by {by_authors} in {in_experiments}."]
    groups = grouping.groups
    if groups:
        n_comparable = sum(len(group.runs) for group in groups)
        words.append(
            f"{n_comparable:,} of them are comparable, in {count(len(groups), 'group')} with the same data, split and "
            "metric: " + "; ".join(_short(group, names) for group in groups[:MAX_GROUPS]) + "."
        )
    else:
        words.append("No two of them are comparable: the table says why.")
    if len(groups) > MAX_GROUPS:
        words.append(f"The largest {MAX_GROUPS} groups are shown.")
    reasons = Counter(run.reason for run in grouping.left_out)
    for reason, n in reasons.most_common(6):
        words.append(f"{count(n, 'run')} {'is left out' if n == 1 else 'are left out, each'} because {reason}.")
    return Section("overview", "What is compared", 2, words, _left_out(grouping.left_out))


def differences_section(group: RunGroup, key: str) -> Section:
    """List the differences between the runs of a group."""
    differing = differences(group.runs)
    rows: list[list[Cell]] = [[d.name, d.kind, len(d.value_counts), _values(d)] for d in differing]
    params = [d.name for d in differing if d.kind == "parameter"]
    words = []
    if not differing:
        words = ["Nothing that was recorded differs: these runs repeat each other."]
    elif params:
        words.append(f"{count(len(params), 'hyperparameter')}: {_first(dict.fromkeys(params), 12)}.")
    others = [d.name for d in differing if d.kind not in ("parameter", "author")]
    if others:
        words.append(
            f"The runs also differ in {_first(dict.fromkeys(others), 12)}: differences of scores may come from there."
        )
    n_dirty = sum(run.tag(GIT_DIRTY_TAG) == "true" for run in group.runs)
    if n_dirty:
        words.append(f"{count(n_dirty, 'run')} had uncommitted changes: the same commit need not mean the same code.")
    columns = ["property", "kind", "values", "each value (runs)"]
    table = Table("Properties that differ, and how many runs have each value", columns, rows)
    return Section(key, "What differs", 3, words, table if rows else None)


def _of_group(
    group: RunGroup, number: str, source: RunSource, by: str | None, parts: Sequence[str], pixels: int,
    left_out: Sequence[LeftOut],
) -> Iterator[Section]:  # fmt: skip
    colouring = colour_runs(group.runs, by)
    for part in (part for part in PARTS if part in parts):
        key = f"{part}-{number}"
        if part == "leaderboard":
            yield from filter(None, [leaderboard_section(group, key, by)])
        elif part == "scores":
            yield scores_section(group, key)
        elif part == "differences":
            yield differences_section(group, key)
        elif part == "importance":
            yield from filter(None, [importance_section(group, key)])
        elif part == "next":
            yield from next_sections(group, key, left_out)
        elif part == "time":
            yield from filter(None, [time_section(group, key, by)])
        elif part == "curves":
            yield from curves_sections(group, key, source, colouring, pixels)
        elif part == "descents":
            yield from descents_sections(group, key, source, colouring)


def _short(group: RunGroup, names: Mapping[str, str]) -> str:
    data = short(names.get(group.data_digest, group.data_digest))
    return f"{count(len(group.runs), 'run')} on {data} by {group.metric}"


def _data_names(facts: Sequence[RunFacts]) -> dict[str, str]:
    """Names of data by digest, as far as a run has the param ``data``."""
    return {run.data_digest: run.params["data"] for run in facts if run.data_digest and run.params.get("data")}


def _about(group: RunGroup) -> str:
    split = f"split {group.split_digest}" if group.split_digest else "split not recorded"
    return f"Data {group.data_digest}, {split}; ranked by {group.metric} ({group.better})."


def _left_out(left_out: Sequence[LeftOut]) -> Table | None:
    if not left_out:
        return None
    with_authors = has_several_authors(run for run, _ in left_out)
    rows: list[list[Cell]] = [
        [
            RunCell(run.run_id, run.experiment_id, run.name),
            *([run.author] if with_authors else []),
            run.status.lower(),
            reason,
        ]
        for run, reason in left_out[:MAX_LEFT_OUT]
    ]
    which = f"{MAX_LEFT_OUT} of the {len(left_out):,} runs" if len(left_out) > MAX_LEFT_OUT else "The runs"
    return Table(
        f"{which} that are left out, and why", ["run", *(["author"] if with_authors else []), "status", "why"], rows
    )


def _values(difference: RunDifference) -> str:
    counts = difference.value_counts
    shown = [f"{short(value)} ({n})" for value, n in counts[:MAX_VALUES]]
    return "; ".join(shown) + (f"; and {len(counts) - MAX_VALUES} more" if len(counts) > MAX_VALUES else "")


def _first(names: dict[str, object] | Counter[str], limit: int = 6) -> str:
    listed = list(names)[:limit]
    return ", ".join(listed) + (f" and {len(names) - limit} more" if len(names) > limit else "")
