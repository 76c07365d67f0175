"""Tracking URIs."""

from __future__ import annotations

import pytest

from mlflow_hp.tracking.store_uri import absolute_uri


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a/b.db?timeout=5", "sqlite:///{here}/a/b.db?timeout=5"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{here}/x.db"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("./mlruns", "{here}/mlruns"),
        ("mlruns", "{here}/mlruns"),
        ("file:mlruns", "file://{here}/mlruns"),
        ("file:///x/mlruns", "file:///x/mlruns"),
        ("http://host:5000", "http://host:5000"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
    ],
)
def test_absolute_uri(monkeypatch, tmp_path, uri, absolute):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(uri) == absolute.format(here=tmp_path)
