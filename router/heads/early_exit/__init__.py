"""One classifier behind an early exit: a short program, the model as it is, or a correction."""
