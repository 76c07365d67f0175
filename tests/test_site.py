"""The site of the documentation: pages whose blocks are marked, and what the build makes of them."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from docs.site import __main__ as site
from docs.site import blocks, commands, entry_points, gallery, navigation, page_run, pages, reference, staging

ROOT = Path(__file__).parents[1]
TEXTS = site.texts()


def one(text, name="a.md"):
    return blocks.read_page(name, text)


@pytest.mark.parametrize("name", TEXTS)
def test_each_block_and_picture_is_run_or_says_why_not(name):
    page = one(TEXTS[name], name)
    assert len(page.blocks) == len(re.findall(r"^ *```(?:python|console|sh)\n", TEXTS[name], re.MULTILINE))
    for block in page.blocks:
        if block.language == "python":
            compile(block.before + "\n" + block.code, name, "exec")
        assert block.language != "sh" or block.not_run, "sh is for the tests that know the name of a block"
        assert all(old in block.code for old, _ in block.replaced)


def test_the_navigation_leads_to_each_page():
    config = re.sub(r"!!python\S+ \{.*\}", "x", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"[\w/*]+(?:\.md|/\*)", json.dumps(yaml.safe_load(config)["nav"])))
    generated = {"docs/entry_points/*", "docs/reference/*"}
    patterns = [re.compile(re.escape(name).replace(r"\*", r"[\w.]+")) for name in named - generated]
    assert generated < named
    assert [name for name in TEXTS if not any(pattern.fullmatch(name) for pattern in patterns)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("![a](b.png)\n", "drawn by nothing"),
        ("<!-- not rnu: x -->\n```python\n1\n```\n", "no marker"),
        ("<!-- with: a => b -->\n```text\n1\n```\n", "in front of no block"),
        ("<!-- small: -P a=1 -->\n", "in front of no block"),
        ("<!-- output -->\n", "behind no block"),
        ("<!-- picture: drawn by hand -->\n![a](b.png)\n", "drawn by nothing"),
        ("<!-- picture: artifact a.png of train -->\n![a](a.png)\n", "no command of the page runs"),
    ],
)
def test_a_marker_that_would_do_nothing_is_refused(text, fault):
    with pytest.raises(blocks.PageError, match=fault):
        one(text)


def test_a_marker_in_a_block_is_code():
    page = one("```text\n<!-- output -->\n```\n")
    assert page.blocks == page.shown == []


def test_markers_belong_to_the_next_block():
    markers = "<!-- before\nx = 1\n-->\n<!-- with: RUN => {x + 1} -->\n"
    page = one(f"{markers}```python\nprint(RUN)\n```\n<!-- output -->\n```python\n2\n```\n")
    assert [(each.before, each.replaced) for each in page.blocks] == [("x = 1", (("RUN", "{x + 1}"),)), ("", ())]
    outcome = page_run.run_block(page.blocks[0], "a.md", {})
    assert (outcome.outputs, outcome.error) == (("2\n",), "")
    result = pages.PageResult(page, [Path("/nowhere")], [outcome, page_run.Outcome()], [""])
    assert result.error == ""
    assert staging.output(result, page.shown[0]) == "```text\n2\n```"


def test_a_replacement_may_have_expressions_among_its_words():
    page = one("<!-- with: RUN => {[1, 2][0]} --yes --n {x} -->\n```python\nprint('RUN')\n```\n")
    assert page_run.run_block(page.blocks[0], "a.md", {"x": 3}).outputs == ("1 --yes --n 3\n",)


def test_a_server_of_a_page_goes_on_until_the_page_ends(monkeypatch, tmp_path):
    port = commands.free_port()
    program = f"""#!{sys.executable}
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(401)

HTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
"""
    (tmp_path / "mlflow-hp").write_text(program)
    (tmp_path / "mlflow-hp").chmod(0o755)
    monkeypatch.setenv("MLFLOW_PORT", str(port))
    monkeypatch.setenv("DOCS_MLFLOW", str(tmp_path / "mlflow"))
    done = commands.run("mlflow-hp ui")
    assert (done.status, done.errors) == (0, "")
    (server,) = commands.SERVERS
    commands.end_servers()
    assert server.returncode is not None


@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(1)", "def f(:"])
def test_a_block_that_fails_is_a_fault_with_its_line(code):
    page = one(f"text\n\n```python\nx = 1\n{code}\n```\n")
    result = pages.PageResult(page, [], [page_run.run_block(page.blocks[0], "a.md", {})], [])
    assert result.error.startswith("a.md:4\n")
    assert '"a.md", line 5' in result.error


def test_a_block_that_prints_nothing_has_no_output_to_show():
    page = one("```python\nx = 1\n```\n<!-- output -->\n")
    result = pages.PageResult(page, [], [page_run.Outcome(("",))], [""])
    assert result.error == "a.md:4: the block has printed nothing"


def test_a_command_that_fails_is_a_fault(store):
    outcome = page_run.run_block(one("```console\necho one\nfalse\necho two\n```\n").blocks[0], "a.md", {})
    assert outcome.outputs == ("one\n", "")
    assert outcome.error.startswith("$ false\nstatus 1\n")


def test_commands_are_split_at_lines_that_go_on():
    assert blocks.split_commands("a \\\n  b  # c\n\n# d\n$ e 'x#y'\n") == ["a b", "e 'x#y'"]


def test_small_runs_get_what_they_lack():
    command = "mlflow run . -e train -P epochs=9"
    assert commands.with_parameters(command, "-P epochs=1 -P main:x=1 -P train:y=2") == f"{command} -P y=2"
    assert commands.with_parameters("mlflow server", "-P epochs=1") == "mlflow server"


def test_experiments_run_beside_the_rest_of_their_page():
    page = one("```python\n1\n```\n```console\nmlflow run . -e train\n```\n```console\nmlflow run .\nls\n```\n")
    assert blocks.parts(page) == [[0, 2], [1]]
    assert blocks.entry_commands(page, "main") == [(2, 0)]
    assert blocks.entry_commands(page, "train") == [(1, 0)]


def test_what_takes_longest_begins_first():
    page = one("```python\n1\n```\n```console\nmlflow run .\nmlflow run . -e train\n```\n")
    assert [pages.work(page, blocks) for blocks in ([0], [1], [0, 1])] == [1, 10, 11]


def test_outputs_are_short_and_name_no_folder_of_the_build():
    text = "/b/run/x/report.html\n\x1b[1mbold\x1b[0m\n 10%\r100%\n" + "line\n" * 60
    lines = staging.readable(text, [Path("/b/run/x"), Path("/b/run")]).splitlines()
    assert lines[:3] == ["report.html", "bold", "100%"]
    assert lines[12] == "... (27 more lines) ..."
    assert len(lines) == 37


def test_a_marker_behind_a_table_leaves_the_line_that_ends_it():
    text = (
        "a <!-- b --> c\n\n<!-- findings: x -->\n| a |\n|---|\n<!-- end -->\n\n## B\n<!-- before\nx\n-->\n```python\n"
    )
    assert staging.without_comments(text) == "a  c\n\n| a |\n|---|\n\n## B\n```python\n"


def test_pages_are_in_the_order_in_which_they_are_read(tmp_path):
    for name in ["entry_points/beale", "entry_points/main", "entry_points/new", "a/z", "a/README", "a/p.b", "a/p"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.md").touch()
    assert navigation._files("a/*", tmp_path) == ["a/README.md", "a/p.md", "a/p.b.md", "a/z.md"]
    names = [Path(each).stem for each in navigation._files("entry_points/*", tmp_path)]
    assert names == ["main", "beale", "new"]


def test_parameters_of_one_value_are_marked_where_others_take_several():
    run = staging.EntryRun("mlflow run .", "", ["a"], [])
    pages = {name: entry_points.page(name, {"description": "d"}, "", run, []) for name in ("train", "grid_search")}
    assert {name: "(one value)" in text for name, text in pages.items()} == {"train": True, "grid_search": False}
    assert {name: entry_points.SEVERAL in text for name, text in pages.items()} == {"train": True, "grid_search": False}


def test_a_section_of_the_readme_leads_to_the_same_pages():
    readme = "### `main`: why\n\n[a](docs/a.md) [b](README.md#b)\n\n## Next\n"
    text = entry_points.page("main", {"description": "d"}, readme, staging.EntryRun("mlflow run .", "", ["a"], []), [])
    assert "\n[a](../a.md) [b](../../README.md#b)\n" in text


def test_the_gallery_shows_the_picture_of_each_program():
    shown = re.findall(r"drawn/(\w+\.png)\)\]\((\w+)\.md", gallery.thumbnails())
    places = {path.stem: one(gallery.markdown(path)).shown for path in gallery.programs()}
    drawn = {
        f"{stem}_{place.value}": stem for stem, shown in places.items() for place in shown if place.kind == "shown"
    }
    assert dict(shown) == drawn


@pytest.mark.parametrize("path", gallery.programs(), ids=lambda path: path.stem)
def test_a_program_of_the_gallery_is_a_page_and_a_notebook(path):
    page = one(gallery.markdown(path), f"docs/gallery/{path.stem}.md")
    assert [place.kind for place in page.shown].count("shown") == 1
    assert page.text.startswith("# ")
    picture = ROOT / "docs" / "pictures" / "improve.png"  # any
    outcomes = [page_run.Outcome(("text\n",)) for _ in page.blocks]
    notebook = gallery.notebook(path, pages.PageResult(page, [], outcomes, [str(picture)] * len(page.shown)))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]) for cell in code] == [block.code.strip() for block in page.blocks]
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert [each["output_type"] for each in code[-1]["outputs"]] == ["stream", "display_data"]


def test_the_reference_has_each_public_name():
    texts = reference.pages()
    for package, names in reference.packages().items():
        text = texts[package]
        assert all(f'"{name}"' in text or f"{name}`" in text for name in names), package


def test_the_reference_describes_nothing_twice():
    described = re.findall(r"^::: (\S+)", "\n".join(reference.pages().values()), re.MULTILINE)
    assert len(described) == len(set(described)) > 30


def test_versions_are_a_table_with_a_column_per_job():
    table = runpy.run_path(str(ROOT / "docs" / "versions.py"))["table"]
    line = {
        "job": "make test",
        "python": "3.11.7",
        "date": "2026-01-02",
        "system": "x",
        "versions": {"keras": "3.10.0"},
    }
    rows = [row.strip("| ").split(" | ") for row in table([line, {**line, "job": "b", "versions": {}}]).splitlines()]
    assert rows[0] == ["`make test`, Python 3.11.7", "`b`, Python 3.11.7"]
    assert ["keras", "3.10.0"] in rows
    assert table([]) == "*No job has written a line yet.*"


def test_each_test_job_notes_its_versions():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    jobs = re.findall(r"^(test[\w-]*):", makefile, re.MULTILINE)
    assert [f"make {job}" for job in jobs] == re.findall(r"docs/versions.py '(.*)'", makefile)


def test_a_line_of_versions_keeps_its_date_until_a_version_differs():
    noted = runpy.run_path(str(ROOT / "docs" / "versions.py"))["noted"]
    line = {"job": "make test", "python": "3.11.7", "date": "1", "system": "x", "versions": {"keras": "3.10.0"}}
    assert noted([], line) == [line]
    assert noted([line], {**line, "date": "2"}) == [line]
    other = {**line, "date": "2", "python": "3.11.8"}
    assert noted([line], other) == [other]
    assert noted([line], {**line, "python": "3.12.1"}) == [line, {**line, "python": "3.12.1"}]
