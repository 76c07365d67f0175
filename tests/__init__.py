"""Tests, in folders as the package has them; what several need is in `tests.helpers`."""
