"""Layer `labels`: outcome, failure type, onset, time to failure and dimension risk from events (numpy only)."""

LABELERS = {"events": "failsight.labels.events:EventLabeler"}
"""Registered labelers: name -> class."""
