"""Test-time depth adaptation: the layer program that serves one input best, whether its answer is given or not."""
