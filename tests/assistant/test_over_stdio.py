"""The command `mlflow-hp mcp`, by a client of the SDK over stdin and stdout."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from tests.helpers.stored_runs import add_run, new_experiment


@pytest.mark.slow
def test_a_session(store, tracking_uri, tmp_path):
    from mcp import Client, StdioServerParameters

    experiment = new_experiment(store, tmp_path)
    run_id = add_run(store, experiment, "over stdio", params={"learning_rate": 0.1}, metrics={"val_loss": 0.25})
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "mlflow_hp.cli", "mcp"], env=environment)

    async def session():
        async with Client(parameters) as client:
            tools = await client.list_tools()
            shown = await client.call_tool("show_run", {"run_id": run_id})
            refused = await client.call_tool("show_run", {"run_id": "0" * 32})
            return {tool.name: tool for tool in tools.tools}, shown, refused

    tools, shown, refused = asyncio.run(asyncio.wait_for(session(), 240))
    assert "run_improvement" not in tools
    assert all(tool.annotations.read_only_hint and tool.description for tool in tools.values())
    assert not shown.is_error
    assert shown.content[0].text.startswith("over stdio: run, finished, by ")
    assert refused.is_error
