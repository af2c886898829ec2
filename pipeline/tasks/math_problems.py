r"""Math word problems: the model writes a solution, math-verify grades its final answer.

GSM8K rows have ``question`` and ``answer`` (the final answer follows ``####``); DART-Math rows have
``query`` (or ``problem``, ``question``) and ``gt_ans`` (or ``answer``).
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.tasks.base import DataRequest, Example, Task
from pipeline.tasks.data import Row, read_examples
from pipeline.tasks.scoring import Graded

_INSTRUCTION = "Solve the problem step by step. End with the final answer as \\boxed{answer}."


def _prompt(problem: str) -> str:
    return f"{problem.strip()}\n\n{_INSTRUCTION}"


def read_gsm8k(request: DataRequest) -> list[Example]:
    """GSM8K; the reference is what follows ``####``, without thousands separators."""

    def to_example(row: Row) -> tuple[str, str, tuple[str, ...]]:
        _, found, final = row.text("answer").rpartition("####")
        if not found or not final.strip():
            raise UserError(f"{row.where}: column 'answer' has no final answer after '####'")
        return _prompt(row.text("question")), final.strip().replace(",", ""), ()

    return read_examples(request, task="gsm8k", to_example=to_example)


def read_dart_math(request: DataRequest) -> list[Example]:
    """DART-Math; the reference is a LaTeX expression."""

    def to_example(row: Row) -> tuple[str, str, tuple[str, ...]]:
        return _prompt(row.text("query", "problem", "question")), row.text("gt_ans", "answer").strip(), ()

    return read_examples(request, task="dart-math", to_example=to_example)


GSM8K = Task(
    name="gsm8k",
    summary="GSM8K word problems, solution generated and graded by math-verify",
    read=read_gsm8k,
    scoring=Graded(max_new_tokens=256),
    chat=True,
    hub_data="openai/gsm8k:main",
)

DART_MATH = Task(
    name="dart-math",
    summary="DART-Math problems, solution generated and graded by math-verify",
    read=read_dart_math,
    scoring=Graded(max_new_tokens=512),
    chat=True,
    hub_data="hkust-nlp/dart-math-uniform",
)
