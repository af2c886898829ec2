"""The kinds of scoring, one file each: ``choice``, ``exact_match``, ``matched_line``, ``graded``; all use ``margins``.

Correctness is always 0 or 1; the margin says how far the logits are from the opposite result.
"""
