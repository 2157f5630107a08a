"""Layer `interventions`: the guard, the rungs and the ladder that chooses among them (numpy only)."""

INTERVENTIONS = {
    "safe-stop": "failsight.interventions.rungs:SafeStop",
    "slow": "failsight.interventions.rungs:Slow",
    "retry": "failsight.interventions.rungs:Retry",
    "takeover": "failsight.interventions.rungs:Takeover",
    "ladder": "failsight.interventions.ladder:Ladder",
}
"""Registered interventions: name -> class."""
