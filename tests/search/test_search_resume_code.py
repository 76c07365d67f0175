"""A search that was interrupted, its code or data edited, and resumed: it never takes over what the edit changed."""

from __future__ import annotations

import pytest

from tests.helpers.edits import FORMS, FURTHER

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.sampled(36)
@pytest.mark.parametrize("name", [*FORMS, *(pytest.param(name, marks=pytest.mark.slow) for name in FURTHER)])
def test_resumed_where_nothing_was_edited_and_not_taken_over_where_something_was(write, name):
    (files, shift, before), (file, old, new) = {**FORMS, **FURTHER}[name]
    program = write(files, shift, before=before)
    first = program.interrupted()
    assert first.n_fits == 3
    program.edit("train.py", "import json", "# where it begins\n\nimport json")
    resumed = program.run("again")
    assert resumed.scores == program.run("bare").scores, resumed.text
    assert resumed.n_fits == 2, resumed.text
    program.write_train(f", resume={program.run_id!r}")
    if old is None:
        program.write(file, new)
    elif file == "train.py":
        program.write_train(f", resume={program.run_id!r}", before=before.replace(old, new))
    else:
        program.edit(file, old, new)
    bare, again = program.run("bare"), program.run("again")
    assert bare.scores != resumed.scores
    if again.scores is None:
        assert "cannot be resumed" in again.error
        assert file in again.error or "(helpers." in again.error, again.error
    else:
        assert again.scores == bare.scores
        assert again.n_fits == 4
        assert "folds are computed again" in again.text
        assert file in again.text or "data/" in again.text or "helpers.py" in again.text or "late.py" in again.text
