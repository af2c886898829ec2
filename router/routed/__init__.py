"""The frozen model with a router on it: it chooses its own depth."""
