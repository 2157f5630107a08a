"""Demonstrations of scripted experts."""
