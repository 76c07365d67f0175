"""Messages to the user: logged under mlflow_hp, shown by default, and never the end of a program."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from mlflow_hp import _notice

TELLS = """
from mlflow_hp import _notice
_notice.log("details", logging.DEBUG, "mlflow_hp.delivery")
_notice.log("100% %s sent", name="mlflow_hp.delivery")
_notice.log("the end waits", logging.WARNING, "mlflow_hp.delivery.spool")
_notice.warn("not recorded")
"""
SENT, WAITS = "mlflow_hp: 100% %s sent\n", "mlflow_hp: the end waits\n"

DICT_CONFIG = """logging.config.dictConfig({
    "version": 1,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {"mlflow_hp": {"level": "INFO", "handlers": ["stderr"], "propagate": False}},
})"""


def told_by(before, after=""):
    """What a program prints to stderr that configures logging in a way; the warning's place is left out."""
    program = f"import logging, logging.config, sys, warnings\n{before}\n{TELLS}\n{after}\nprint('ended')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ended\n")
    return done.stderr


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("", [SENT, WAITS]),
        ("import mlflow", [SENT, WAITS]),
        ("logging.getLogger('mlflow_hp').setLevel('ERROR')", []),
        ("logging.getLogger('mlflow_hp').setLevel('WARNING')", [WAITS]),
        ("logging.getLogger('mlflow_hp').setLevel('INFO')", [SENT, WAITS]),
        ("logging.getLogger('mlflow_hp').setLevel('DEBUG')", ["mlflow_hp: details\n", SENT, WAITS]),
        ("logging.getLogger('mlflow_hp.delivery').setLevel('ERROR')", []),
        ("logging.getLogger('mlflow_hp.search').setLevel('ERROR')", [SENT, WAITS]),
        ("logging.getLogger().setLevel('ERROR')", []),
        ("logging.disable(logging.CRITICAL)", []),
        ("logging.disable(logging.INFO)", [WAITS]),
        ("logging.getLogger('mlflow_hp').addHandler(logging.NullHandler())", []),
        ("logging.getLogger('mlflow_hp.delivery').disabled = True", [WAITS]),
        ("logging.basicConfig()", ["WARNING:mlflow_hp.delivery.spool:the end waits\n"]),
        ("logging.basicConfig(level='ERROR')", []),
        ("logging.basicConfig(level='INFO', format='%(levelname)s %(module)s %(message)s')",
         ["INFO <string> 100% %s sent\n", "WARNING <string> the end waits\n"]),
        (DICT_CONFIG, ["100% %s sent\n", "the end waits\n"]),
    ],
)  # fmt: skip
def test_the_programs_logging_wins(before, shown):
    told = told_by(f"warnings.simplefilter('ignore')\n{before}")
    assert told == "".join(shown)


def test_it_adds_no_handler():
    after = "print([n for n, l in logging.root.manager.loggerDict.items() if 'mlflow_hp' in n and "
    after += "getattr(l, 'handlers', 0)], logging.root.handlers, file=sys.stderr)"
    assert told_by("warnings.simplefilter('ignore')", after) == f"{SENT}{WAITS}[] []\n"


def test_logging_that_is_configured_later_wins():
    before = (
        "warnings.simplefilter('ignore')\nfrom mlflow_hp import _notice\n_notice.log('first')\nlogging.basicConfig()"
    )
    assert told_by(before) == "mlflow_hp: first\nWARNING:mlflow_hp.delivery.spool:the end waits\n"


def test_warnings():
    assert "RecordingWarning: mlflow_hp: not recorded\n" in told_by("")
    assert told_by("warnings.simplefilter('error')") == f"{SENT}{WAITS}mlflow_hp: not recorded\n"
    assert "WARNING:py.warnings:" in told_by("logging.basicConfig()\nlogging.captureWarnings(True)")


@pytest.mark.parametrize(
    "before",
    [
        "sys.stderr = None",
        "sys.stderr.close()",
        "logging.basicConfig()\nsys.stderr.close()",
        "import os; os.close(2)",
        "class H(logging.Handler):\n    def emit(self, record): raise KeyError('theirs')\nlogging.root.addHandler(H())",
    ],
)
@pytest.mark.parametrize("filters", ["error", "ignore"])
def test_it_never_raises(before, filters):
    told_by(f"warnings.simplefilter({filters!r})\n{before}")


def test_caplog(caplog):
    _notice.log("hidden by the level of the root logger")
    with caplog.at_level("INFO", "mlflow_hp"):
        _notice.log("sent", name="mlflow_hp.delivery")
    assert caplog.record_tuples == [("mlflow_hp.delivery", logging.INFO, "sent")]


def test_warnings_that_are_errors_are_logged(caplog, warnings_are_errors):
    assert not _notice.warn("not recorded")
    assert caplog.record_tuples == [("mlflow_hp", logging.WARNING, "not recorded")]


def test_what_is_logged_steers_no_terminal(caplog):
    _notice.log("a\x1b[2J\nb", logging.WARNING)
    assert caplog.messages == [r"a\x1b[2J\nb"]
