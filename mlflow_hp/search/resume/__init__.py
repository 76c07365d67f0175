"""A search resumed: what an earlier process has computed is known again, and not computed twice."""
