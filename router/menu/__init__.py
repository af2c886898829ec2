"""Candidate sets: programs that examples share, their verdicts, and the predicted probability of being right."""
