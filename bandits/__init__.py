"""Learning and choosing. This package knows no people, events or topics."""
