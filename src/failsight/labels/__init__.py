"""Layer `labels`: outcome, failure type, onset, time to failure and dimension risk from events (numpy only)."""

LABELERS = {
    "events": "failsight.labels.events:EventLabeler",
    "driving": "failsight.labels.driving:DriveLabeler",
    "outcome": "failsight.labels.outcome:OutcomeLabeler",
}
"""Registered labelers: name -> class."""
