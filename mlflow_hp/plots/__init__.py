"""Pictures: each is made in two steps, numbers first, then drawn on the Axes given."""
