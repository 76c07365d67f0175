"""Draw the packages of mlflow_hp and what imports what, for CONTRIBUTING.md.

    python docs/tree.py          # print the diagram
    python docs/tree.py --write  # put it into CONTRIBUTING.md

An arrow goes from a package to one that it imports, types included; arrows that follow from others are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grimp

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
HIDDEN = ("terminal", "errors", "_extras", "_notice", "_forks", "_lazy", "_compat")
"""Modules that all others may import."""


def arrows() -> list[tuple[str, str]]:
    """List each package with those that it imports directly and through no other."""
    graph = grimp.build_graph("mlflow_hp")
    packages = {name.rpartition(".")[2] for name in graph.find_children("mlflow_hp")} - set(HIDDEN)
    imports = {
        one: {
            other for other in packages - {one}
            if graph.direct_import_exists(importer=f"mlflow_hp.{one}", imported=f"mlflow_hp.{other}", as_packages=True)
        }
        for one in packages
    }  # fmt: skip

    def reached(package: str) -> set[str]:
        return imports[package].union(*map(reached, imports[package]))

    return sorted(
        (one, other)
        for one, others in imports.items()
        for other in others
        if not any(other in reached(each) for each in others)
    )


def diagram() -> str:
    """Draw the diagram in Mermaid, for Markdown."""
    lines = [f"  {one} --> {other}" for one, other in arrows()]
    return "\n".join(["```mermaid", "flowchart TB", *lines, "```"])


def with_diagram(text: str) -> str:
    """Replace the diagram in the text of CONTRIBUTING.md by a new one."""
    return re.sub(r"```mermaid\n.*?```", lambda _: diagram(), text, flags=re.DOTALL)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        CONTRIBUTING.write_text(with_diagram(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(diagram())
