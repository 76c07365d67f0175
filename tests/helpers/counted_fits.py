"""Fits that are counted in a folder, at one of which a search is interrupted, killed, or fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

import mlflow_hp
from tests.helpers.searches import X, Y


class Stops(LogisticRegression):
    """Counts its fits in a file, and is interrupted, killed or fails at one of them."""

    def __init__(self, C=1.0, folder=None, at=-1, how="interrupt"):  # noqa: N803
        super().__init__(C=C, max_iter=500, tol=0.1)
        self.folder = folder
        self.at = at
        self.how = how

    def fit(self, x, y, sample_weight=None):
        number = len(list(Path(self.folder).iterdir()))
        Path(self.folder, str(number)).touch()
        if Path(self.folder).with_suffix(f".stop{number}").exists():
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "fail":
                raise RuntimeError("failed this once")
            signal.raise_signal(signal.SIGINT)
        return super().fit(x, y, sample_weight)


class Fits:
    """The folder in which fits are counted."""

    def __init__(self, folder):
        self.folder = folder / "fits"
        self.folder.mkdir()

    def stop_at(self, number):
        for told in self.folder.parent.glob("*.stop*"):
            told.unlink()
        self.folder.with_suffix(f".stop{number}").touch()

    @property
    def n(self):
        return len(list(self.folder.iterdir()))


def interrupted(search, x=X, y=Y, raises=KeyboardInterrupt, **settings):
    with pytest.raises(raises), mlflow_hp.record_search(search, progress=False, report=False, **settings) as recording:
        search.fit(x, y)
    return recording.run_id
