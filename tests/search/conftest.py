"""Programs with a search, for the tests of what is resumed."""

from __future__ import annotations

import time

import pytest
from programs import Program, Programs


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture
def write(programs, store, tmp_path, request):
    return lambda files, shift, **parts: Program(
        programs, tmp_path / "project", f"{request.node.name} {time.time()}".replace("/", "_"), files, shift, **parts
    )
