"""Faults, for real: what is lost, wrong or left open when processes and servers are killed, refuse or hang.

    python -m benchmarks.faults [--cases kill server ...] [--kills 50] [--postgres URI] [--restart COMMAND]

kill      trainings killed with -9 at random moments, each recovered
again     a training killed, and trained on in the same run without a recovery in between
search    a search over two processes killed with -9 and resumed, its results against those of the search alone
server    one training, to whose server all faults happen in one go: 400 to 503, redirects, HTML, a run that is deleted
          and restored, a database that lacks it for a while, a server that is killed, hangs, hangs but for /health, ...
end       trainings that end while the server is at fault: how long the end waits, and what `mlflow-hp recover` brings
hosts     a training under another host name, in another pid namespace (Linux, `unshare`)
away      a search while the server is away for a minute
crowd     eight trainings and a search at once into one server, then eight trainings at once into one SQLite file
long      a million steps of the Dense(1) model: memory, and the history

In each table: steps lost (done and not in MLflow), wrong (points missing, twice, or other than in the history), runs
left RUNNING, recordings left behind on this machine after `mlflow-hp recover`. All should be 0, but that a kill may
lose the last second. `--cases kill server` shows fifty kills, and over twenty faults of a server in one go.
With --postgres, a database that may be overwritten, the server keeps its runs there; else in a SQLite file.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from benchmarks.fault_cases import crowds, hosts, kills, outages, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["kill", "again", "search", "server", "end", "hosts", "away", "crowd", "long"]
    parser.add_argument("--cases", nargs="*", default=names, choices=names)
    parser.add_argument("--kills", type=int, default=50, help="of the cases kill and search; a tenth of it in `again`")
    parser.add_argument("--postgres", help="postgresql://...: a database that may be overwritten")
    parser.add_argument("--restart", help="a command that restarts PostgreSQL itself, for the case `server`")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        training.train(*json.loads(arguments.train))
        return
    n, store = arguments.kills, arguments.postgres
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chdir(name)
        for case in arguments.cases:
            folder = Path(name, case)
            folder.mkdir()
            os.environ["MLFLOW_HP_FOLDER"] = str(folder / "on-its-way")
            print(f"## {case}\n", flush=True)
            {
                "kill": lambda folder: kills.kill(folder, n),
                "again": lambda folder: kills.again(folder, n),
                "search": lambda folder: kills.search(folder, n),
                "server": lambda folder: outages.server(folder, store, arguments.restart),
                "end": lambda folder: outages.end(folder, store),
                "hosts": hosts.hosts,
                "away": lambda folder: outages.away(folder, store),
                "crowd": lambda folder: crowds.crowd(folder, store),
                "long": crowds.long,
            }[case](folder)


if __name__ == "__main__":
    main()
