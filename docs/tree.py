"""Draw the packages of mlflow_hp and what imports what, for CONTRIBUTING.md.

    python docs/tree.py          # prints the picture
    python docs/tree.py --write  # puts it into CONTRIBUTING.md

An arrow goes from a package to one that it imports, types included; those that follow from others are left out.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import grimp

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
HIDDEN = ("terminal", "errors", "_notice", "_forks", "_lazy", "_compat")
"""At the bottom: all others may import them."""


def arrows() -> list[tuple[str, str]]:
    """Each package, and those that it imports itself and by no other."""
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


def picture() -> str:
    """The picture, for Markdown."""
    lines = [f"  {one} --> {other}" for one, other in arrows()]
    return "\n".join(["```mermaid", "flowchart TB", *lines, "```"])


def drawn(text: str) -> str:
    """The text of CONTRIBUTING.md with the picture as it is now."""
    return re.sub(r"```mermaid\n.*?```", lambda _: picture(), text, flags=re.DOTALL)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        CONTRIBUTING.write_text(drawn(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(picture())
