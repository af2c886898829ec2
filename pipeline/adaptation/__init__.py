"""Test-time depth adaptation: the chain of layers that serves one input best, whether its answer is given or not."""
