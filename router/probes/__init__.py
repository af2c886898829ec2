"""Probes: from labelled texts to a trained classifier of hidden states, its evaluation and its use."""
