"""Layer `episodes`: the store in LeRobot v3.0 layout, written crash-safe (pyarrow, av)."""
