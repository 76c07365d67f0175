"""Resuming a search: reuse the folds that an earlier process has finished."""
