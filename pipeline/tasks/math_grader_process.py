"""The grader's process: reads ``[response, reference]`` lines, writes ``true`` or ``false`` lines.

Run as a script by ``pipeline.tasks.math_grader``, which kills it when a comparison takes too long.
"""

from __future__ import annotations

import json
import logging
import sys


def main() -> None:
    """Answer comparisons from standard input until it closes."""
    from math_verify import parse, verify

    # A response that math-verify cannot parse is wrong; its log messages are not needed.
    logging.disable(logging.CRITICAL)
    print("ready", flush=True)
    for line in sys.stdin:
        response, reference = json.loads(line)
        gold = parse(f"\\boxed{{{reference}}}")
        print(json.dumps(bool(verify(gold, parse(response)))), flush=True)


if __name__ == "__main__":
    main()
