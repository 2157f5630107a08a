"""Layer `interventions`: the guard, the rungs, the ladder that chooses among them, and the table of arms (numpy only)."""
