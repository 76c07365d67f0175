"""Hostile changes of the code of a run that is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.reproduce import recipe
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.tags import UNCOMMITTED_TAG
from tests.helpers.hostile_runs import EVIL, created, diff

PATCHES = {
    "above": created("../outside/new.py", "x"),
    "absolute": created("/tmp/mlflow_hp_new.py", "x"),
    "hook": created(".git/hooks/post-checkout", "touch x"),
    "hook in capitals": created(".GIT/hooks/post-checkout", "touch x"),
    "hidden in HFS": created(".g\u200cit/config", "x"),
    "hidden in NTFS": created("git~1/config", "x"),
    "beyond a link": created("away/new.py", "x"),
    "link": created("new.py", "../outside/evil.py", "120000") + "\\ No newline at end of file\n",
    "submodule": created("new", f"Subproject commit {'1' * 40}", "160000"),
    "link moved": "# x\ndiff --git a/link.py b/link.py\nindex 1..2 120000\n--- a/link.py\n+++ b/link.py\n"
    "@@ -1 +1 @@\n-{outside}/evil.py\n\\ No newline at end of file\n+/etc/passwd\n\\ No newline at end of file\n",
    "link without its mode": "# x\ndiff --git a/link.py b/link.py\n--- a/link.py\n+++ b/link.py\n"
    "@@ -1 +1 @@\n-{outside}/evil.py\n\\ No newline at end of file\n+/etc/passwd\n\\ No newline at end of file\n",
    "renamed to above": "# x\ndiff --git a/train.py b/../outside/x.py\nsimilarity index 100%\n"
    "rename from train.py\nrename to ../outside/x.py\n",
    "copied from above": "# x\ndiff --git a/../outside/evil.py b/x.py\nsimilarity index 100%\n"
    "copy from ../outside/evil.py\ncopy to x.py\n",
    "copied from a whole path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "copy from {outside}/evil.py\ncopy to new.py\n",
    "copied from a quoted path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "copy from \"\\057{outside}/evil.py\"\ncopy to new.py\n",
    "renamed from a whole path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "rename from {outside}/evil.py\nrename to new.py\n",
    "link of another mode": created("new.py", "{outside}/evil.py", "120777") + "\\ No newline at end of file\n",
    "link with zeros": created("new.py", "{outside}/evil.py", "000120000") + "\\ No newline at end of file\n",
    "device": created("new.py", "x", "020666"),
    "binary": "# x\ndiff --git a/x b/x\nnew file mode 100644\nindex 0000000..1111111\nGIT binary patch\n"
    "literal 1\nIcmZPo000310RR91\n\n"
    "literal 0\nHcmV?d00001\n\n",
    "of other lines": diff("src/kept.txt", old="-2"),
    "no diff at all": "# x\ndiff --git a/x b/x\nrubbish\n",
    "too long": "# x\n" + "+" * (recipe.LONGEST_PATCH + 1),
    "empty": "",
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_changes_that_leave_the_copy(place, name, capsys):
    outside = place.folder.parent / "outside"
    before = {path: path.read_bytes() for path in outside.rglob("*")}
    run_id = place.run("python new.py", patch=PATCHES[name].replace("{outside}", str(outside)))
    assert place.refused(run_id)
    assert "only those are run" not in capsys.readouterr().err  # it is the changes that are refused
    assert {path: path.read_bytes() for path in outside.rglob("*")} == before
    assert not Path("/tmp/mlflow_hp_new.py").exists()
    assert list((place.folder / ".git" / "hooks").glob("post-checkout")) == []


def test_changes_that_are_in_another_artifact(place):
    for path in ("../../x", "/etc/passwd", "code", "other.diff", "--help"):
        run_id = place.run(patch=diff("src/kept.txt"))
        place.store.set_tag(run_id, UNCOMMITTED_TAG, path)
        assert place.refused(run_id)
    run_id = place.run()
    place.store.log_text(run_id, "x", f"{UNCOMMITTED_FILE}/x")
    place.store.set_tag(run_id, UNCOMMITTED_TAG, UNCOMMITTED_FILE)
    assert place.refused(run_id)


def test_changes_before_the_first_header_are_not_applied(place):
    sneaked = "--- a/src/kept.txt\n+++ b/src/kept.txt\n@@ -1 +1 @@\n-1\n+2\n"
    run_id = place.run("python -c 1", patch=f"# x\n{sneaked}{diff('src/kept.txt', '+3')[4:]}")
    assert place.refused(run_id)


def test_changes_of_others_are_shown_in_full_before_they_run(place, capfd):
    evil = created("new.py", f"{EVIL} # \u202e\x1b[2J")
    run_id = place.run("python new.py", patch=evil)
    assert cli.main(["repeat", run_id, "--run", "--yes"]) == 2
    said = capfd.readouterr()
    assert "does not bear your seal" in said.err
    assert "--trust" in said.err
    assert not place.evil.exists()
    assert cli.main(["repeat", run_id, "--run", "--yes", "--trust"]) == 2
    said = capfd.readouterr().out
    assert f"+{EVIL} # " + r"\u202e\x1b[2J" in said
    assert said.index(EVIL) < said.index("Will be run: python new.py")
    assert said.endswith("does not bear your seal\n")
    assert place.evil.exists()
