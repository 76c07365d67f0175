"""Data of the experiments: generated, in files, or downloaded."""
