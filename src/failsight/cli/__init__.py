"""Layer `cli`: parse, print; no logic (tyro, rich)."""
