"""failsight: robot policies that see their own failures coming, and act in time."""

__version__ = "0.1.0"
