"""A team's server: the commands of docs/team.md are run as written, and its compose file is what MLflow takes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import uuid
from pathlib import Path

import mlflow
import pytest
import yaml

import mlflow_hp
from mlflow_hp.server import app
from tests.helpers.forked_python import commands
from tests.helpers.needs import since_mlflow

ROOT = Path(__file__).parents[1]
TEAM = ROOT / "docs" / "team"
TEXT = (ROOT / "docs" / "team.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- run: (\w+) -->\n```sh\n(.*?)```", TEXT, re.DOTALL))
ENV = (TEAM / "team.env").read_text(encoding="utf-8")
SETTINGS = dict(re.findall(r"^([A-Z]\w+)=(.*)$", ENV, re.MULTILINE))
OPTIONAL = dict(re.findall(r"^#([A-Z]\w+)=(.*)$", ENV, re.MULTILINE))
COMPOSE = (TEAM / "compose.yaml").read_text(encoding="utf-8")
SERVICES = yaml.safe_load(COMPOSE)["services"]
VARIABLE = re.compile(r"\$\{?([A-Z]\w+)")


def server_options():
    """What `mlflow server` takes: options, and environment variables."""
    from mlflow import environment_variables
    from mlflow.cli import server

    options = {option for parameter in server.params for option in parameter.opts}
    variables = {parameter.envvar for parameter in server.params} | {
        name for name in vars(environment_variables) if name.startswith("MLFLOW_")
    }
    return options, variables


def test_every_block_is_named_and_run():
    assert len(BLOCKS) == TEXT.count("```sh\n")
    ran = re.findall(r"\.(?:run|start)\(\"(\w+)\"", Path(__file__).read_text(encoding="utf-8"))
    assert set(ran) == set(BLOCKS)


@pytest.mark.parametrize("words", [SERVICES["mlflow"]["command"], BLOCKS["serve"].split()], ids=["compose", "shell"])
def test_the_server_is_given_options_that_it_has(words):
    options, _ = server_options()
    assert words[:2] == ["mlflow", "server"]
    assert {word for word in words if word.startswith("--")} <= options


@since_mlflow("3.17", "reads the first administrator from its environment")
def test_settings_are_those_that_are_read():
    _, variables = server_options()
    of_mlflow = {
        name for name in {*SETTINGS, *OPTIONAL, *SERVICES["mlflow"]["environment"]} if name.startswith("MLFLOW_")
    }
    assert of_mlflow <= variables
    used = set(VARIABLE.findall(COMPOSE)) | {name for block in BLOCKS.values() for name in VARIABLE.findall(block)}
    ours = {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "ACCOUNT"}
    ours |= {"PGHOST", "PGUSER", "PGPASSWORD"}
    assert used - ours <= {*SETTINGS, *OPTIONAL}
    named = used.union(*(service["environment"] for service in SERVICES.values()))
    unused = {*SETTINGS, *OPTIONAL} - named
    assert {name for name in unused if not name.startswith("MLFLOW_")} == set()


def test_the_applications_are_there():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = project["entry-points"]["mlflow.app"]
    for name in (SETTINGS["APP_NAME"], "mlflow-hp-basic-auth"):
        module, _, attribute = named[name].partition(":")
        assert module == app.__name__
        assert callable(getattr(app, attribute))


def test_what_compose_names_is_there():
    document = yaml.safe_load(COMPOSE)
    for service in document["services"].values():
        assert {config["source"] for config in service.get("configs", [])} <= set(document["configs"])
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(document["volumes"])
        assert set(service.get("depends_on", {})) <= set(document["services"])
        assert service["healthcheck"]["test"][0] == "CMD"
    build = document["services"]["mlflow"]["build"]
    assert (TEAM / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    paths = {config["target"] for config in document["services"]["mlflow"]["configs"]}
    assert document["services"]["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"] in paths


def test_links_of_the_text_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists()


def no_postgresql():
    """Why the commands can't be run here; None where they can."""
    missing = [tool for tool in ("bash", "curl", "psql", "createdb", "pg_dump", "pg_restore") if not shutil.which(tool)]
    if missing:
        return f"there is no {missing[0]} here"
    words = ["psql", "--host", "127.0.0.1", "--username", "postgres", "--no-password", "--command", "SELECT 1"]
    done = subprocess.run(words, capture_output=True, text=True)
    return None if done.returncode == 0 else f"no PostgreSQL at 127.0.0.1 for postgres: {done.stderr.strip()[:200]}"


class Team:
    """A team's folder with its settings, in which blocks of the text are run."""

    def __init__(self, folder, **more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.user = f"team_{uuid.uuid4().hex[:12]}"
        self.given = SETTINGS | {
            "TEAM_URL": self.url,
            "DB_NAME": self.user,
            "DB_USER": self.user,
            "DB_PASSWORD": "s3cretpassw0rd",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": "1",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": self.url,
            "BACKUPS": str(folder / "backups"),
            **more,
        }
        self.folder = folder
        (folder / "team.env").write_text("".join(f"{name}={value}\n" for name, value in self.given.items()))

    def run(self, name, check=True, **environment):
        done = subprocess.run(self._words(name), capture_output=True, text=True, **self._within(environment))
        assert not check or done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
        return done

    @contextlib.contextmanager
    def start(self, name, **environment):
        """The server, for as long as the block; it is there when the block of that is through."""
        log = self.folder / "server.log"
        with log.open("w") as said:
            server = subprocess.Popen(
                self._words(name), stdout=said, stderr=said, start_new_session=True, **self._within({})
            )
        try:
            done = self.run("look", check=False, **environment)
            assert done.returncode == 0, f"{done.stderr}\n{log.read_text()[-5000:]}"
            yield
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def drop(self):
        """All that PostgreSQL has of it is gone."""
        statements = [f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)' for name in (self.user, f"{self.user}_auth")]
        self._admin(*statements, f'DROP ROLE IF EXISTS "{self.user}"')

    def _admin(self, *statements):
        words = ["psql", "--host", "127.0.0.1", "--username", "postgres", "--quiet"]
        given = [word for statement in statements for word in ("--command", statement)]
        subprocess.run([*words, *given], check=True, capture_output=True)

    def _words(self, name):
        return ["bash", "-euo", "pipefail", "-c", f"set -a; . '{self.folder}/team.env'; set +a\n{BLOCKS[name]}"]

    def _within(self, environment):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PG"))}
        path = f"{commands()}:{os.environ['PATH']}"
        ours = {"PATH": path, "PYTHONPATH": str(ROOT), "MLFLOW_HP_FOLDER": str(self.folder / "hp")}
        return {"cwd": ROOT, "env": kept | ours | environment}


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Makes a team; what it has in PostgreSQL is dropped in the end."""
    reason = no_postgresql()
    if reason:
        pytest.skip(reason)
    made = []

    def make(**more):
        made.append(Team(tmp_path, **more))
        return made[-1]

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield make
    for one in made:
        one.drop()


def recorded(url):
    """The run of the block `train`, and what its training recorded."""
    client = mlflow.MlflowClient(url)
    (run,) = client.search_runs([client.get_experiment_by_name("descents").experiment_id])
    return run, mlflow_hp.load_history(run.info.run_id, url)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_from_its_databases_to_its_restoration(team):
    ours = team()
    ours.run("databases")
    with ours.start("serve"):
        ours.run("train", MLFLOW_HP_AUTHOR="Anna")
        before, history = recorded(ours.url)
        losses = history.steps["batch_loss"]
        assert before.data.tags["mlflow_hp.author"] == "Anna"
        ours.run("backup")
    ours.drop()
    shutil.rmtree(ours.given["MLFLOW_ARTIFACTS_DESTINATION"])
    ours.run("databases")
    ours.run("restore")
    ours.run("upgrade")
    with ours.start("serve"):
        after, history = recorded(ours.url)
    assert after.to_dictionary() == before.to_dictionary()
    assert (history.steps["batch_loss"] == losses).all()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_with_users(team, tmp_path, monkeypatch):
    ours = team(APP_NAME="mlflow-hp-basic-auth", MLFLOW_AUTH_CONFIG_PATH=str(tmp_path / "basic_auth.ini"))
    ours.run("databases")
    ours.run("accounts")
    assert Path(ours.given["MLFLOW_AUTH_CONFIG_PATH"]).stat().st_mode & 0o077 == 0
    admin = f"{ours.given['MLFLOW_AUTH_ADMIN_USERNAME']}:{ours.given['MLFLOW_AUTH_ADMIN_PASSWORD']}"
    with ours.start("serve", ACCOUNT=admin):
        assert ours.run("look", check=False).returncode == 22  # curl's for a status of 400 or more
        ours.run("user")
        ours.run("look", ACCOUNT="anna:a-long-password-of-hers")
        assert ours.run("look", check=False, ACCOUNT="anna:another").returncode == 22
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-long-password-of-hers")
        client = mlflow.MlflowClient(ours.url)
        run = client.create_run(client.create_experiment("hers"))
        client.log_metric(run.info.run_id, "loss", 0.5)
        assert client.get_run(run.info.run_id).data.metrics == {"loss": 0.5}
