"""A recorded run once more: what it takes, its program run again, and how far the results are apart."""
