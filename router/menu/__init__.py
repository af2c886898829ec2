"""Candidate sets: programs that examples share, whether they are right on them, and what to expect of each."""
