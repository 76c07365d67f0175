"""A comparison in parts: what is comparable, and for each group of runs what it shows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mlflow_hp.compare.colors import colouring
from mlflow_hp.compare.comparability import Goal, Group, Grouped, LeftOut, grouped
from mlflow_hp.compare.curves import curves_sections
from mlflow_hp.compare.descents import descents_sections
from mlflow_hp.compare.differences import Difference, differences
from mlflow_hp.compare.formatting import count, short
from mlflow_hp.compare.leaderboard import leaderboard_section, time_section
from mlflow_hp.compare.parameters import importance_section
from mlflow_hp.compare.scores import scores_section
from mlflow_hp.compare.section import Cell, RunCell, Section, Table
from mlflow_hp.compare.source import PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import Source

PARTS = ("overview", "leaderboard", "scores", "differences", "importance", "time", "curves", "descents")
"""What can be asked for; in this order they come."""
GROUPS = 8
"""Groups that are shown, the largest."""
LISTED = 200
"""Runs that are listed as left out, by name."""
VALUES = 8
"""Values of a difference that are listed, the most frequent."""


def sections(
    facts: Sequence[RunFacts],
    source: Source,
    *,
    metric: str | None = None,
    goal: Goal | None = None,
    by: str | None = None,
    unfinished: bool = False,
    parts: Sequence[str] = PARTS,
    pixels: int = PIXELS,
) -> list[Section]:
    """Compare runs.

    Parameters
    ----------
    facts : sequence of RunFacts
        As `gather` gives them.
    source : Source
        Where their histories are read.
    metric, goal
        By what to judge, and whether ``"min"`` or ``"max"`` of it is better; by default what `groups.grouped` takes.
    by : str, optional
        ``"author"``, ``"experiment"``, or a param or tag: by what runs are coloured and the leaderboard is made. By
        default each run has a colour, and the leaderboard is by author.
    unfinished : bool
        Whether runs that are running are compared, too, by what they have reached.
    parts : sequence of str
        Which of ``PARTS``; each costs only its own time.
    pixels : int
        Width of curves on the screen.

    Returns
    -------
    list of Section
        First the overview, then for each group of comparable runs, the largest first, one of level 2 and its parts.

    Raises
    ------
    UserError
        Where there is no run, or none has `metric`.
    """
    found, names = grouped(facts, metric, goal, unfinished=unfinished), _data_names(facts)
    made = [overview(facts, found)] if "overview" in parts else []
    for index, group in enumerate(found.groups[:GROUPS]):
        if set(parts) - {"overview"}:
            title = f"Group {index + 1}: {_short(group, names)}"
            made.append(Section(f"group-{index + 1}", title, 2, [_about(group)]))
        made += _of_group(group, str(index + 1), source, by, parts, pixels)
    return made


def overview(facts: Sequence[RunFacts], found: Grouped) -> Section:
    """How many runs of whom are compared, and which are left out and why."""
    authors, names = Counter(run.author for run in facts), _data_names(facts)
    experiments = {run.experiment for run in facts}
    whose = f"{count(len(authors), 'author')} ({_few(authors)})"
    where = f"{count(len(experiments), 'experiment')} ({_few(dict.fromkeys(sorted(experiments)))})"
    words = [f"{count(len(facts), 'run')} of {whose} in {where}."]
    compared = sum(len(group.runs) for group in found.groups)
    if found.groups:
        words.append(
            f"{compared:,} of them are comparable, in {count(len(found.groups), 'group')} of the same data, the same "
            "split and the same metric: " + "; ".join(_short(group, names) for group in found.groups[:GROUPS]) + "."
        )
    else:
        words.append("No two of them are comparable: the table says why.")
    if len(found.groups) > GROUPS:
        words.append(f"The largest {GROUPS} groups are shown.")
    reasons = Counter(left.reason for left in found.left_out)
    words += [f"Left out ({n:,}): {reason}." for reason, n in reasons.most_common(6)]
    return Section("overview", "What is compared", 2, words, _left_out(found.left_out))


def differences_section(group: Group, key: str) -> Section:
    """What differs between the runs of a group."""
    found = differences(group.runs)
    rows: list[list[Cell]] = [[d.name, d.kind, len(d.counted), _values(d)] for d in found]
    kinds = Counter(difference.kind for difference in found)
    words = []
    if not found:
        words = ["Nothing that was recorded differs: these repeat one another."]
    elif kinds["parameter"]:
        named = [d.name for d in found if d.kind == "parameter"]
        words.append(f"{count(len(named), 'hyperparameter')}: {_few(dict.fromkeys(named), 12)}.")
    others = [d.name for d in found if d.kind not in ("parameter", "author")]
    if others:
        words.append(
            f"The runs also differ in {_few(dict.fromkeys(others), 12)}: a difference of scores may come from there."
        )
    changed = sum(run.tag("git_dirty") == "true" for run in group.runs)
    if changed:
        words.append(f"{count(changed, 'run')} had uncommitted changes: the same commit need not be the same code.")
    table = Table(
        "What differs, and how many runs have each value", ["what", "kind", "values", "each value (runs)"], rows
    )
    return Section(key, "What differs", 3, words, table if rows else None)


def _of_group(
    group: Group, number: str, source: Source, by: str | None, parts: Sequence[str], pixels: int
) -> Iterator[Section]:
    colours = colouring(group.runs, by)
    for part in (part for part in PARTS if part in parts):
        key = f"{part}-{number}"
        if part == "leaderboard":
            yield leaderboard_section(group, key, by)
        elif part == "scores":
            yield scores_section(group, key)
        elif part == "differences":
            yield differences_section(group, key)
        elif part == "importance":
            yield from filter(None, [importance_section(group, key)])
        elif part == "time":
            yield from filter(None, [time_section(group, key, by)])
        elif part == "curves":
            yield from curves_sections(group, key, source, colours, pixels)
        elif part == "descents":
            yield from descents_sections(group, key, source, colours)


def _short(group: Group, names: Mapping[str, str]) -> str:
    data = short(names.get(group.data_digest, group.data_digest))
    return f"{count(len(group.runs), 'run')} on {data} by {group.metric}"


def _data_names(facts: Sequence[RunFacts]) -> dict[str, str]:
    """What data are called, by their digest, as far as a run on them says it."""
    return {run.data_digest: run.params["data"] for run in facts if run.data_digest and run.params.get("data")}


def _about(group: Group) -> str:
    split = f"split {group.split_digest}" if group.split_digest else "how it was split is not recorded"
    better = "more is better" if group.goal == "max" else "less is better"
    return f"Data {group.data_digest}, {split}; judged by the last {group.metric}, of which {better}."


def _left_out(left_out: Sequence[LeftOut]) -> Table | None:
    if not left_out:
        return None
    rows: list[list[Cell]] = [
        [RunCell(run.run_id, run.experiment_id, run.name), run.author, run.status.lower(), reason]
        for run, reason in left_out[:LISTED]
    ]
    of = f"{LISTED} of the {len(left_out):,} runs" if len(left_out) > LISTED else "The runs"
    return Table(f"{of} that are left out, and why", ["run", "author", "status", "why"], rows)


def _values(difference: Difference) -> str:
    counted = difference.counted
    shown = [f"{short(value)} ({n})" for value, n in counted[:VALUES]]
    return "; ".join(shown) + (f"; and {len(counted) - VALUES} more" if len(counted) > VALUES else "")


def _few(names: dict[str, object] | Counter[str], most: int = 6) -> str:
    listed = list(names)[:most]
    return ", ".join(listed) + (f" and {len(names) - most} more" if len(names) > most else "")
