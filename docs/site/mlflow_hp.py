"""The command ``mlflow-hp`` as a module, for forks; a program."""

from mlflow_hp.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
