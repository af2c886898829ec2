"""How answers are judged, one file a way: ``choice``, ``exact_match``, ``graded``; ``margins`` is what they share.

Correctness is always 0 or 1; the margin says how far the logits are from the other verdict.
"""
