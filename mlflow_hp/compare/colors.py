"""Which run has which colour: the best have one each, or all have that of their author or setting."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.compare import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

OTHERS = "others"


class Colouring(NamedTuple):
    """How runs are told apart in figures.

    Attributes
    ----------
    said : str
        That, in a sentence.
    places : dict of str to int
        Run -> number of its colour, of those that have one.
    names : list of str
        By number of the colour.
    first : dict of str to str
        Name -> the run under which the legend shows it.
    """

    said: str
    places: dict[str, int]
    names: list[str]
    first: dict[str, str]

    def of(self, run: RunFacts) -> dict[str, Any]:
        """What a trace of lines says of name, legend and colour."""
        place = self.places.get(run.run_id)
        if place is None:
            return {"showlegend": False, "line": {"color": figures.BEHIND, "width": 1}, "legendgroup": OTHERS}
        name = self.names[place]
        return {
            "name": figures.text(name),
            "legendgroup": str(place),
            "showlegend": self.first[name] == run.run_id,
            "line": figures.line(place),
        }


def colouring(runs: Sequence[RunFacts], by: str | None = None) -> Colouring:
    """Colours for runs that come with the best first.

    The best ``NAMED`` have each their own; or, with `by`, each has that of its author, kind, experiment, param or tag.
    """
    if by is None:
        chosen = runs[: figures.NAMED]
        seen = Counter(run.name for run in chosen)
        twice = {run.run_id: f"{run.name} · {run.author}" for run in chosen}
        again = Counter(twice.values())
        names = [
            run.name if seen[run.name] == 1
            else twice[run.run_id] if again[twice[run.run_id]] == 1
            else f"{twice[run.run_id]} · {run.run_id[:6]}"
            for run in chosen
        ]  # fmt: skip
        rest = len(runs) - len(chosen)
        said = f"The best {len(chosen)} have colours, {rest} others are grey." if rest else ""
        places = {run.run_id: index for index, run in enumerate(chosen)}
        return Colouring(said, places, names, {n: run.run_id for n, run in zip(names, chosen, strict=True)})
    values = {run.run_id: value_of(run, by) for run in runs}
    names = [name for name, _ in Counter(values.values()).most_common(figures.NAMED)]
    first: dict[str, str] = {}
    for run in runs:
        first.setdefault(values[run.run_id], run.run_id)
    said = f"Coloured by {by}."
    return Colouring(said, {i: names.index(v) for i, v in values.items() if v in names}, names, first)


def value_of(run: RunFacts, by: str) -> str:
    """What a run is grouped by: its author, kind or experiment, or one of its params or tags."""
    own = {"author": run.author, "kind": run.kind, "experiment": run.experiment}
    return own.get(by) or run.params.get(by) or run.tags.get(by) or run.tag(by) or f"no {by}"
