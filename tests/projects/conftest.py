"""What holds for the pictures of all experiments."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_picture_has_a_title(monkeypatch):
    from matplotlib.figure import Figure

    savefig, untitled = Figure.savefig, []

    def titled(self, file, **settings):
        if not self.get_suptitle():
            untitled.append(file)
        savefig(self, file, **settings)

    monkeypatch.setattr(Figure, "savefig", titled)
    yield
    assert not untitled
