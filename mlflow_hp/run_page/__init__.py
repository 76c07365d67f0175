"""What the page of one run shows: its training step by step, its descent, and both as a file of its own."""

from __future__ import annotations
