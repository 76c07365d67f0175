"""The command line ``mlflow-hp``: a file for each command."""
