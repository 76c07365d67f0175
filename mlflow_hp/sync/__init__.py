"""Runs brought from one MLflow store to another, again and again, without duplicates."""
