"""Trainings, and what came of them."""
