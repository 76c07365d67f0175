"""An illustrated report as one file: texts stay texts, and pictures are in it as long as there is room."""

from __future__ import annotations

import base64
import re

from mlflow_hp.run_page import illustrated as module
from mlflow_hp.run_page.illustrated import ReportPart, illustrated

NAUGHTY = "<img src=x onerror=alert(1)>"


def test_everything_is_in_it(tmp_path, monkeypatch):
    pictures = {}
    for name in ("scores", NAUGHTY):
        pictures[name] = tmp_path / f"{len(pictures)}.png"
        pictures[name].write_bytes(name.encode())
    part = ReportPart("", [f"**The best** is `{NAUGHTY}`.", r"data a\[0\] \*\*b"], ["rank", NAUGHTY], [["1", NAUGHTY]])
    html = illustrated(NAUGHTY, "GridSearchCV", [part], pictures)
    assert "<img src=x" not in html
    assert [base64.b64decode(data).decode() for data in re.findall(r"base64,([^\"]+)", html)] == ["scores", NAUGHTY]
    assert "The best is &lt;img" in html
    assert "data a[0] **b" in html
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    small = illustrated("Search", "", [part], pictures)
    assert small.count("base64") == 1
    assert "Left out here" in small
