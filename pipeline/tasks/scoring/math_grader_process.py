"""The grader's process: reads ``[answer, reference]`` lines, writes ``math_grader.Comparison`` lines.

Run as a script by ``pipeline.tasks.scoring.math_grader``, which kills it when a comparison takes too long.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from contextlib import suppress
from typing import Any

#: math-verify takes numbers for equal that differ by less: it rounds them to six digits behind the point.
_ROUNDING = 1e-5
_MOST_BYTES = 4 << 30


def main() -> None:
    """Answer comparisons from standard input until it closes."""
    from math_verify import parse, verify

    # An answer that math-verify cannot parse is ungradable; its log messages are not needed.
    logging.disable(logging.CRITICAL)
    # Some answers, such as towers of powers, fill any memory before their time is up.
    _limit_memory()
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            answer, reference = (parse(f"\\boxed{{{text}}}") for text in json.loads(line))
            if not answer or not reference:
                comparison = "ungradable"
            elif verify(reference, answer) and not _equal_by_rounding_alone(answer[0], reference[0]):
                comparison = "equal"
            else:
                comparison = "unequal"
        except MemoryError:
            comparison = "ungradable"
        print(json.dumps(comparison), flush=True)


def _limit_memory() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with suppress(ValueError, OSError):  # a system may have no such limit
        resource.setrlimit(
            resource.RLIMIT_AS, (_MOST_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MOST_BYTES), hard)
        )


def _equal_by_rounding_alone(answer: Any, reference: Any) -> bool:
    """Whether two different numbers are equal where they are rounded: 0.3333333 and 1/3, 1/2006! and 1/2004!.

    Of answers of several numbers, such as points, sets and matrices, whether any two of them are.
    """
    from sympy import Expr, FiniteSet, Interval, MatrixBase, Tuple
    from sympy.core.relational import Relational

    for kind in (FiniteSet, Interval, MatrixBase, Tuple, Relational):
        if isinstance(answer, kind) and isinstance(reference, kind):
            ours, theirs = (list(one) if isinstance(one, MatrixBase) else list(one.args) for one in (answer, reference))
            return len(ours) == len(theirs) and any(map(_equal_by_rounding_alone, ours, theirs))
    for one in (answer, reference):
        if not (isinstance(one, Expr) and one.is_number and one.is_finite):
            return False
    ours, theirs = _exact(answer), _exact(reference)
    difference, largest = abs((ours - theirs).evalf(50)), abs(ours.evalf(50)) + abs(theirs.evalf(50))
    return bool(difference <= _ROUNDING and difference > largest * 1e-20)


def _exact(number: Any) -> Any:
    """A number whose decimals are fractions: 0.5 is 1/2."""
    from sympy import Float, Rational

    # math-verify leaves parts such as the 1/100 of a percentage unevaluated.
    return number.replace(lambda part: isinstance(part, Float), lambda part: Rational(str(part))).doit()


if __name__ == "__main__":
    main()
