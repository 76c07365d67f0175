"""Runs whose tags and recorded changes of the code are hostile, and the repository they are of."""

from __future__ import annotations

import json
import subprocess

from mlflow_hp.cli import main as cli
from mlflow_hp.tracking import provenance, seal
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.tags import TAG_PREFIX, UNCOMMITTED_SEAL_TAG, UNCOMMITTED_TAG
from tests.helpers.stored_runs import add_run

PROGRAM = "import json, os, sys\nopen(os.environ['CANARY'], 'w').write(json.dumps(sys.argv[1:]))\n"
EVIL = "open(__import__('os').environ['EVIL'], 'w')"


def git(folder, *words):
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def new_repository(folder):
    """Make a repository with programs, links out of it, and a remote."""
    (folder / "src").mkdir(parents=True)
    (folder / "tool" / "deep").mkdir(parents=True)
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "evil.py").write_text(EVIL)
    for name in ("train.py", "src/part.py", "tool/deep/__main__.py", "tool/mod.py", "a file.py"):
        (folder / name).write_text(PROGRAM)
    (folder / "src" / "kept.txt").write_text("1\n")
    (folder / "link.py").symlink_to(outside / "evil.py")
    (folder / "away").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    git(folder, "remote", "add", "origin", "https://example.org/ours.git")


class Place:
    """A repository, what is written where evil succeeds or the program runs, and a run that says anything."""

    def __init__(self, folder, store, experiment, tmp_path):
        self.folder, self.store, self.experiment = folder, store, experiment
        self.evil, self.canary = tmp_path / "evil", tmp_path / "canary"
        self.head = git(folder, "rev-parse", "HEAD")

    def run(self, command="python train.py", *, patch=None, sealed=False, **tags):
        """A run; the tags are as of the recorder, but for those given."""
        tags = {"command": command, "git_commit": self.head, "git_folder": ".", "kind": "training", **tags}
        tags = {name: value for name, value in tags.items() if value is not None}
        if sealed:
            texts = (tags.get(name.removeprefix(TAG_PREFIX)) for name in provenance.SEALED_TAGS)
            tags["seal"] = seal.seal("command", *texts)
        run_id = add_run(self.store, self.experiment, tags=tags)
        if patch is not None:
            self.log_patch(run_id, patch)
        return run_id

    def log_patch(self, run_id, patch, *, sealed=False):
        self.store.log_text(run_id, patch, UNCOMMITTED_FILE)
        self.store.set_tag(run_id, UNCOMMITTED_TAG, UNCOMMITTED_FILE)
        if sealed:
            self.store.set_tag(run_id, UNCOMMITTED_SEAL_TAG, seal.seal("patch", self.head, patch))

    def refused(self, run_id, *words):
        """Whether nothing at all is run, however much it is trusted."""
        assert cli.main(["repeat", run_id, *(words or ["--run"]), "--yes", "--trust"]) == 2
        assert not self.evil.exists()
        assert not self.canary.exists()
        assert len(git(self.folder, "worktree", "list").splitlines()) == 1
        return True

    def arguments(self, run_id, *words):
        """What the program was given; it is none that records, so that the status is 2."""
        self.canary.unlink(missing_ok=True)
        assert cli.main(["repeat", run_id, *(words or ["--run"]), "--yes"]) == 2
        return json.loads(self.canary.read_text()) if self.canary.exists() else None


def diff(path, new="+1", old="-1", mode="", to=None):
    other = to or path
    return f"# x\ndiff --git a/{path} b/{other}\n{mode}--- a/{path}\n+++ b/{other}\n@@ -1 +1 @@\n{old}\n{new}\n"


def created(path, line, mode="100644"):
    header = f"# x\ndiff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n"
    return f"{header}--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"
