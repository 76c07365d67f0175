"""What holds for the pictures of all experiments."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_picture_has_a_title(request, monkeypatch):
    from matplotlib.figure import Figure

    if "blank_pictures" in request.fixturenames:
        request.getfixturevalue("blank_pictures")
    savefig, untitled = Figure.savefig, []

    def titled(self, file, **settings):
        if not self.get_suptitle():
            untitled.append(file)
        savefig(self, file, **settings)

    monkeypatch.setattr(Figure, "savefig", titled)
    yield
    assert not untitled


@pytest.fixture
def one_of_each_picture(monkeypatch):
    """Of the pictures that have one name in several runs, one is drawn, and the others are empty files."""
    from matplotlib.figure import Figure

    savefig, drawn = Figure.savefig, set()

    def save(self, file, **settings):
        if file.name in drawn:
            file.touch()
        else:
            drawn.add(file.name)
            savefig(self, file, **settings)

    monkeypatch.setattr(Figure, "savefig", save)
