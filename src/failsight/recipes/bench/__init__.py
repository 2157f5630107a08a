"""Comparisons of failure detectors."""
