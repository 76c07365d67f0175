"""Colours of runs in figures: one for each of the best runs, or one for each author or setting."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.compare import figures
from mlflow_hp.tracking.tags import TAG_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

OTHERS = "others"


class Colouring(NamedTuple):
    """Assignment of colours to runs.

    Attributes
    ----------
    sentence : str
        Description of the colours; empty if every run has one.
    colours : dict of str to int
        Run id -> index of its colour; other runs are grey.
    names : list of str
        Name in the legend, by index of the colour.
    legend_runs : dict of str to str
        Name -> id of the run that the legend shows it for.
    """

    sentence: str
    colours: dict[str, int]
    names: list[str]
    legend_runs: dict[str, str]

    def of(self, run: RunFacts) -> dict[str, Any]:
        """Name, legend and line style for the trace of a run."""
        index = self.colours.get(run.run_id)
        if index is None:
            return {"showlegend": False, "line": {"color": figures.GREY, "width": 1}, "legendgroup": OTHERS}
        name = self.names[index]
        return {
            "name": figures.text(name),
            "legendgroup": str(index),
            "showlegend": self.legend_runs[name] == run.run_id,
            "line": figures.line(index),
        }


def colour_runs(runs: Sequence[RunFacts], by: str | None = None) -> Colouring:
    """Assign colours to `runs`, which are sorted best first.

    The best ``MAX_NAMED`` have a colour each; with `by`, each author, kind, experiment, or value of a param or tag has,
    unless all runs have the same.
    """
    values = {} if by is None else {run.run_id: group_name(run, by) for run in runs}
    if by is None or len(set(values.values())) == 1:  # one colour for all would tell nothing apart
        chosen = runs[: figures.MAX_NAMED]
        n_same_name = Counter(run.name for run in chosen)
        with_author = {run.run_id: f"{run.name} · {run.author}" for run in chosen}
        n_same_author = Counter(with_author.values())
        names = [
            run.name if n_same_name[run.name] == 1
            else with_author[run.run_id] if n_same_author[with_author[run.run_id]] == 1
            else f"{with_author[run.run_id]} · {run.run_id[:6]}"
            for run in chosen
        ]  # fmt: skip
        n_grey = len(runs) - len(chosen)
        others = "the other one is" if n_grey == 1 else f"{n_grey:,} others are"
        sentence = f"The best {len(chosen)} have colours, {others} grey." if n_grey else ""
        colours = {run.run_id: index for index, run in enumerate(chosen)}
        return Colouring(sentence, colours, names, {n: run.run_id for n, run in zip(names, chosen, strict=True)})
    names = [name for name, _ in Counter(values.values()).most_common(figures.MAX_NAMED)]
    legend_runs: dict[str, str] = {}
    for run in runs:
        legend_runs.setdefault(values[run.run_id], run.run_id)
    colours = {run_id: names.index(value) for run_id, value in values.items() if value in names}
    return Colouring(f"Coloured by {by}.", colours, names, legend_runs)


def group_name(run: RunFacts, by: str) -> str:
    """Value by which a run is grouped: its author, kind or experiment, or one of its params or tags."""
    attributes = {"author": run.author, "kind": run.kind, "experiment": run.experiment}
    return attributes.get(by) or run.params.get(by) or run.tag(by) or run.tag(f"{TAG_PREFIX}{by}") or f"no {by}"
