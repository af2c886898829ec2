r"""Math word problems: the model writes a solution, math-verify grades its final answer.

GSM8K rows have ``question`` and ``answer`` (the final answer follows ``####``); DART-Math rows have
``query`` (or ``problem``, ``question``) and ``gt_ans`` (or ``answer``). On the hub ``hkust-nlp/dart-math-pool-math``
has these columns, but one row for each of a problem's many responses: keep one row of each problem before a search.
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.tasks.rows import ExampleFields, Row, read_examples
from pipeline.tasks.scoring.graded import Graded
from pipeline.tasks.task import Task
from pipeline.tasks.types import DataRequest, Example, Rendering

#: The wordings of a prompt for a solution; the first is the usual one. A box with a word in it would be copied.
_WORDINGS = (
    "{problem}\n\nSolve the problem step by step. Put the final answer in \\boxed{{}}.",
    "Problem: {problem}\n\nThink step by step, and put the final answer into \\boxed{{}}.",
    "Solve this problem step by step, and write the final answer inside \\boxed{{}} at the end.\n\n{problem}",
    "{problem}\n\nWork it out in steps. The last line must be the final answer in \\boxed{{}}.",
)
#: The wordings of prompt version 1.
_FIRST_WORDINGS = (
    "{problem}\n\nSolve the problem step by step. End with the final answer as \\boxed{{answer}}.",
    "Problem: {problem}\n\nThink step by step, and put the final answer into \\boxed{{}}.",
    "Solve this problem step by step, and end with the final answer as \\boxed{{answer}}.\n\n{problem}",
    "{problem}\n\nWork it out in steps. The last line must be \\boxed{{answer}}, with the answer in it.",
)


def _example_fields(problem: str, answer: str, request: DataRequest) -> ExampleFields:
    wordings = _FIRST_WORDINGS if request.prompt_version == 1 else _WORDINGS
    first, *others = (wording.format(problem=problem.strip()) for wording in wordings[: request.renderings])
    return ExampleFields(
        question=first, answer=answer, renderings=tuple(Rendering(question=other, answer=answer) for other in others)
    )


def read_gsm8k(request: DataRequest) -> list[Example]:
    """Read GSM8K; the reference answer is the text behind ``####``, without thousands separators."""

    def to_example(row: Row) -> ExampleFields:
        _, separator, number = row.text("answer").rpartition("####")
        final = number.replace(",", "").strip()
        if not separator or not final:
            raise UserError(f"{row.where}: column 'answer' has no final answer after '####'")
        return _example_fields(row.text("question"), final, request)

    return read_examples(request, task="gsm8k", to_example=to_example)


def read_dart_math(request: DataRequest) -> list[Example]:
    """Read DART-Math; the reference answer is a LaTeX expression."""

    def to_example(row: Row) -> ExampleFields:
        problem, answer = row.text("query", "problem", "question"), row.text("gt_ans", "answer").strip()
        return _example_fields(problem, answer, request)

    return read_examples(request, task="dart-math", to_example=to_example)


GSM8K = Task(
    name="gsm8k",
    summary="GSM8K word problems, solution generated and graded by math-verify",
    read=read_gsm8k,
    scoring=Graded(max_new_tokens=256),
    chat=True,
    hub_data="openai/gsm8k:main",
    most_renderings=len(_WORDINGS),
)

DART_MATH = Task(
    name="dart-math",
    summary="DART-Math problems, solution generated and graded by math-verify",
    read=read_dart_math,
    scoring=Graded(max_new_tokens=512),
    chat=True,
    most_renderings=len(_WORDINGS),
)
