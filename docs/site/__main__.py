"""Build the site: run all blocks, draw the pictures, write the pages, check the links; ``make docs``.

python -m docs.site                # into build/docs/html
python -m docs.site --reuse        # run only blocks that changed or failed since the last time
python -m docs.site docs/start.md  # run only this page, if it changed or failed, and build no site
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import shutil
import subprocess
import sys
import time

from docs.site import entry_points, gallery, reference, staging
from docs.site.blocks import Page, PageError, read_page
from docs.site.pages import ROOT, PageResult, run_pages

BUILD = ROOT / "build" / "docs"
SOURCES = BUILD / "pages"
FRONT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
COPIED = ("LICENSE", "docs/team", "docs/theme", "docs/versions.json")


def texts() -> dict[str, str]:
    """Return the pages that are run: those of the checkout, and the programs of the gallery."""
    paths = [*(ROOT / name for name in FRONT), *sorted((ROOT / "docs").rglob("*.md"))]
    written = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return written | {f"{gallery.FOLDER}/{path.stem}.md": gallery.markdown(path) for path in gallery.programs()}


def build(pages: list[Page], *, reuse: bool) -> list[str]:
    """Run all pages and write the sources of the site; return what went wrong."""
    results = run_pages(pages, BUILD / "run", reuse=reuse)
    faults = [result.error for result in results if result.error]
    shutil.rmtree(SOURCES, ignore_errors=True)
    SOURCES.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, SOURCES / name)
        else:
            shutil.copy(ROOT / name, SOURCES / name)
    for result in results:
        if not result.error:
            faults += staging.write_page(result, SOURCES)
    if faults:
        return faults
    by_name = {result.page.name: result for result in results}
    for program in gallery.programs():
        gallery.write_notebook(program, by_name[f"{gallery.FOLDER}/{program.stem}.md"], SOURCES)
        shutil.copy(program, SOURCES / gallery.FOLDER)
    write_generated(results)
    return []


def write_generated(results: list[PageResult]) -> None:
    """Write the pages that come from the code: entry points, reference, versions."""
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    for name, entry in entry_points.entry_points().items():
        run = next(run for each in results if (run := staging.entry_run(each, name)))
        files = entry_points.artifact_names(run.artifacts)
        write(f"{entry_points.FOLDER}/{name}.md", entry_points.page(name, entry, readme, run, files))
    for package, text in reference.pages().items():
        write(f"{reference.FOLDER}/{package}.md", text)
    text = (SOURCES / gallery.FOLDER / "README.md").read_text(encoding="utf-8")
    write(f"{gallery.FOLDER}/README.md", f"{text}\n{gallery.thumbnails()}\n")
    versions = runpy.run_path(str(ROOT / "docs" / "versions.py"))
    lines = json.loads(versions["FILE"].read_text(encoding="utf-8"))
    text = (SOURCES / "docs" / "versions.md").read_text(encoding="utf-8")
    write("docs/versions.md", text + "\n" + versions["table"](lines) + "\n")


def check_links() -> list[str]:
    """Build the site from its sources, and return the links and anchors that lead nowhere, and what else is wrong."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environment)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    return ["\n".join(["mkdocs build --strict", done.stdout, *lines])] if done.returncode else []


def end_forks() -> None:
    """End the process whose forks the commands of the pages were, so that their CPU time is counted."""
    from tests.helpers import forked_python

    for server in forked_python.SERVERS:
        server.communicate()


def write(name: str, text: str) -> None:
    """Write a page of the site's sources."""
    (SOURCES / name).parent.mkdir(parents=True, exist_ok=True)
    (SOURCES / name).write_text(text, encoding="utf-8")


def main(names: list[str]) -> int:
    """Build the site, or run the pages of these names; return 0, or 1 with what went wrong.

    ``--reuse`` among the names runs only what changed.
    """
    os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "MPLBACKEND": "agg"})
    start = time.monotonic()
    reuse, names = "--reuse" in names, [name for name in names if not name.startswith("-")]
    try:
        pages = [read_page(name, text) for name, text in texts().items() if not names or name in names]
    except PageError as error:
        print(error, file=sys.stderr)
        return 1
    if names:
        results = run_pages(pages, BUILD / "run", reuse=True)
        faults = [result.error for result in results if result.error]
        for result in [] if faults else results:
            faults += staging.write_page(result, BUILD / "tried")
    else:
        faults = build(pages, reuse=reuse)
    if not faults and not names:
        faults = check_links()
    print("\n\n".join(faults), file=sys.stderr)
    end_forks()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    print(f"{time.monotonic() - start:.0f} s; {cpu:.0f} s of CPU; {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
