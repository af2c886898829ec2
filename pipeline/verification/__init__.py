"""Replaying a run with the oracle."""
