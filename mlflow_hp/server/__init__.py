"""A page beside MLflow's own UI that compares runs while they train: ``mlflow server --app-name mlflow-hp``."""
