"""Live recording: observe the fits of a search, and write them to MLflow while it runs."""
