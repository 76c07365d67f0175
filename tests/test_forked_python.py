"""Programs that are forks behave as programs of their own do, so that the other tests may use them."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.helpers.forked_python import python
from tests.helpers.waiting import wait_for

PROGRAMS = {
    "arguments": ("-c", "import os, sys; print(__name__, sys.argv, sys.path[0], os.getcwd())", "a", "b c"),
    "a module": ("-m", "json.tool", "--help"),
    "input and both outputs": ("-c", "import sys; print(input()); print('no', file=sys.stderr); sys.exit(3)"),
    "a message": ("-c", "raise SystemExit('wrong')"),
    "an error": ("-c", "1 / 0"),
    "a script's error": ("script.py", "x"),
    "no such script": ("nowhere.py",),
    "Ctrl-C": ("-c", "raise KeyboardInterrupt"),
    "a signal": ("-c", "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGTERM)"),
    "a signal that none can handle": ("-c", "import os; os.kill(os.getpid(), 9)"),
    "threads and what is registered at exit": (
        "-c",
        "import atexit, threading as t; atexit.register(print, 'exit'); t.Timer(0.1, print, ['thread']).start()",
    ),
    "a warning": ("-W", "error::UserWarning", "-c", "import warnings; warnings.warn('w')"),
    "an option": ("-O", "-c", "import sys; print(sys.flags.optimize)"),
}


def ended(executable, words, folder):
    done = subprocess.run([executable, *words], input="line\n", capture_output=True, text=True, cwd=folder)
    last = done.stderr.splitlines()[-1:]  # some versions of Python show the lines of ``-c``, too
    return done.returncode, done.stdout, "".join(last).replace(sys.executable, "python").replace(executable, "python")


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_with_the_real_python(tmp_path, name):
    (tmp_path / "script.py").write_text(
        "import sys\nprint(__file__, sys.argv, sys.path[0])\ndef f():\n    1 / 0\nf()\n"
    )
    assert ended(python(), PROGRAMS[name], tmp_path) == ended(sys.executable, PROGRAMS[name], tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_fork(number):
    program = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    with subprocess.Popen(
        [python(), "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        fork = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait() == -number
        assert fork != process.pid
    wait_for(lambda: not psutil.pid_exists(fork))  # a killed client cannot pass it on: the server does


def test_the_libraries_are_loaded_and_the_real_python_runs_what_needs_other_variables(monkeypatch):
    program = ["-c", "import sys; print('keras' in sys.modules)"]
    assert ended(python(), program, ".")[1] == "True\n"
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    assert ended(python(), program, ".")[1] == "False\n"
