"""Test-time depth adaptation: the chain of layers that serves one input best, with its answer or without."""
