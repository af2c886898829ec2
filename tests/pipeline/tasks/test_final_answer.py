"""The final answer that a solution states."""

from __future__ import annotations

import pytest

from pipeline.tasks.scoring.final_answer import ends_with_box, final_answer
from pipeline.tasks.scoring.math_grader import MathGrader


@pytest.mark.parametrize("behind", ["", ".", "$.\n\nProblem: What is 1 + 1?\n\nIt is $\\boxed{2}$."])
@pytest.mark.parametrize(
    "content",
    [
        "5",
        r"\frac{3}{4}",
        r"\frac{\sqrt{3}}{2}",
        r"\sqrt{\frac{2^{\frac{1}{2}}}{3}}",
        r"\begin{pmatrix} 1 & \frac{1}{2} \\ 0 & 1 \end{pmatrix}",
        r"\left[0, \frac{\pi}{2}\right)",
        r"\{1, 2, 3\}",
        r"\text{18 dollars}",
        "x" * 500,
    ],
)
def test_a_box_of_any_depth_is_the_answer(content, behind):
    """Catches a box whose inner braces end it, or one behind it that is judged in its place."""
    text = f"So it is $\\boxed{{{content}}}"
    assert final_answer(text + behind, ended=False) == content
    assert [ends_with_box(text[:end]) for end in range(len(text) + 1)].index(True) == len(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"It is \boxed 5.", "5"),
        (r"It is \boxed {5}.", "5"),
        (r"It is \boxed 42 apples", "42"),
        (r"It is $\boxed\pi$", r"\pi"),
        (r"It is \boxed 3.5 m", "3.5"),
        (r"It is \fbox{7}", "7"),
        (r"It is \boxed 4", None),  # more digits may follow
        (r"It is $\boxed\frac{3}{4}$.", r"\frac{3}{4}"),
        (r"It is $\boxed\frac12$.", r"\frac12"),
        (r"It is $\boxed\frac{3}{", None),
        (r"It is \boxed x.", "x"),
        (r"I use the \boxed form. So \boxed{5}.", "5"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"It is \boxed{", None),
        (r"First \boxed{4}. No, the final answer is \boxed{", None),
        (r"The answer is \boxed{answer}.", None),
        (r"The answer is \boxed{\text{answer}}, so \boxed{9}.", "9"),
        (r"<think>Perhaps \boxed{3}.</think> It is \boxed{4}.", "4"),
        (r"<think>Perhaps \boxed{3}, or", None),
        (r"Perhaps \boxed{3}.\n</think>\n\nIt is \boxed{4}.", "4"),
    ],
)
def test_boxes(text, answer):
    """Catches an open, echoed or thought-out box that counts, and a box without braces that does not."""
    assert final_answer(text, ended=False) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("We add both. The answer is 5.", "5"),
        ("The final answer is: $12$", "12"),
        ("**Answer:** 12", "12"),
        ("**Answer**: $18$", "18"),
        ("**Answer**: 18", "18"),
        ("The answer is 3. No, the answer is 4.\nGoodbye.", "4"),
        ("The answer is 3.5 apples.", "3.5 apples"),
        ("The answer is $18, since she sells them.", "$18"),
        ("The answer is $3\\sqrt{2}$ cm.", r"3\sqrt{2}"),
        (r"The answer is \(\frac{1}{2}\).", r"\frac{1}{2}"),
        ("The answer is 2 * 9 = 18.", "18"),
        ("The answer is Tuesday.", "Tuesday"),
        ("She has 9 + 9 left.\n#### 18", "18"),
        ("#### $1,800\nThe end.", "$1,800"),
        ("The answer is 18.\n\n#### Verification\n9 * 2 = 18.", "18"),
        ("#### Step 2: Money\nShe sells.", None),
        ("The answer is not 6.", None),
        ("The answer isn't 5.", None),
        ("The answer is 5, not 6.", None),
        ("The answer is between 5 and 10.", None),
        ("The answer is 3 hours and 20 minutes.", None),
        ("Answer: She has 16 eggs and eats 3.", None),
        ("Solution:\nShe has 16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = 18 dollars.", None),
        ("The result is 9 eggs left. So in total she makes 18", None),
        ("Resolution: 5", None),
        ("The answer is 5.\nThe result is wrong.", "5"),
        ("We add the blue and the white.\n\nStep 3: Now the sum of both is the", None),
        ("So we divide the cups by 20- 20- 20- 20- 20-", None),
        ("5", None),
        ("The answer is", None),
        (r"It is \boxed 5", "5"),
    ],
)
def test_sentences_count_where_the_text_has_ended(text, answer):
    """Catches the last number of a text that is taken for its answer, and a sentence that was cut."""
    assert final_answer(text, ended=True) == answer
    assert final_answer(text, ended=False) is None


# -- shapes of answers in MATH -------------------------------------------------------------

#: Answers of the shapes that MATH has, each with an answer that is not equal.
SHAPES = [
    ("5", "6"),
    ("-3", "3"),
    ("0.25", "0.5"),
    ("1,234", "234"),
    (r"\frac{3}{4}", r"\frac{4}{3}"),
    (r"\dfrac{3}{4}", "3"),
    (r"-\frac{1}{2}", r"\frac{1}{2}"),
    (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt{2}}{2}"),
    (r"\sqrt{\frac{2}{3}}", r"\sqrt{\frac{3}{2}}"),
    (r"\frac{1}{\sqrt{2^{3}}}", r"\frac{1}{2}"),
    (r"\frac{\frac{1}{2}}{\frac{1}{3}}", r"\frac{2}{3}"),
    (r"2^{\frac{1}{2}}", "2"),
    (r"3^{2^{\frac{1}{2}}}", "9"),
    (r"\sqrt[3]{2}", r"\sqrt{2}"),
    (r"2\sqrt{2}", r"3\sqrt{2}"),
    (r"\pi", "3"),
    (r"\frac{\pi}{4}", r"\frac{\pi}{3}"),
    (r"e^{2x}", r"e^{x}"),
    ("x^2 + 2x + 1", "x^2 + 1"),
    (r"\frac{x+1}{x-1}", r"\frac{x-1}{x+1}"),
    (r"\left[0, \frac{\pi}{2}\right)", r"\left[0, \pi\right)"),
    ("(1, 2)", "(2, 1)"),
    (r"[-1, 1]", r"[-1, 2]"),
    (r"(-\infty, 3]", r"(-\infty, 4]"),
    (r"(1,2) \cup (3,4)", r"(1,2)"),
    (r"\{1, 2, 3\}", r"\{1, 2\}"),
    (r"\left(\frac{1}{2}, \frac{3}{4}\right)", r"\left(\frac{3}{4}, \frac{1}{2}\right)"),
    (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", r"\begin{pmatrix} 1 & 1 \\ 0 & 1 \end{pmatrix}"),
    (
        r"\begin{pmatrix} \frac{1}{2} \\ \sqrt{3} \end{pmatrix}",
        r"\begin{pmatrix} \frac{1}{2} \\ \sqrt{2} \end{pmatrix}",
    ),
    (r"x = 3", "x = 4"),
    (r"1 + 2i", "1 - 2i"),
    (r"45^\circ", r"46^\circ"),
    (r"\text{Tuesday}", r"\text{Monday}"),
    (r"\log_{2}{3}", r"\log_{3}{2}"),
    (r"\binom{5}{2}", r"\binom{5}{1}"),
]
#: Forms of MATH answers, each around a part that differs between a right and a wrong answer.
FORMS = [
    r"\frac{PART}{7}",
    r"\dfrac{2}{PART}",
    r"\sqrt{PART + 1}",
    r"\frac{\sqrt{PART}}{11}",
    r"\left[PART, 100\right)",
    r"(-\infty, PART]",
    r"\left(\frac{PART}{13}, -5\right)",
    r"\begin{pmatrix} PART & 0 \\ 3 & \frac{1}{2} \end{pmatrix}",
    r"x^{PART} + y",
    r"\{PART, 101, 102\}",
    r"PART\text{ units}",
]
PARTS = ["2", "17", r"\frac{3}{8}", r"2^{\frac{5}{3}}", "19.5", "23", "41", r"\frac{\sqrt{5}}{6}", "3^{10}", r"12\pi"]
BEHIND = ["$.", "$.\n\nProblem: What is 1 + 1?\n\nIt is $\\boxed{2}$."]


@pytest.fixture(scope="module")
def grader():
    grader = MathGrader(seconds=30)
    yield grader
    grader.close()


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(("content", "other"), SHAPES)
def test_a_solution_is_right_by_its_own_box(grader, content, other, behind):
    """Catches a box that ends too soon, and the answer to another problem that is judged in its place."""
    text = f"So it is $\\boxed{{{content}}}{behind}"
    stop = next(end for end in range(len(text) + 1) if ends_with_box(text[:end]))
    assert text[:stop].endswith(f"{content}}}")
    for solution in (text, text[:stop]):
        stated = final_answer(solution, ended=False)
        assert stated == content
        assert grader.equal(solution, content)
        assert not grader.equal(solution, other)


@pytest.mark.parametrize(
    "form",
    [pytest.param(one, marks=() if number in (3, 7) else pytest.mark.exhaustive) for number, one in enumerate(FORMS)],
)
def test_answers_of_every_form_are_told_apart(grader, form):
    """Catches a form that ends a solution in the wrong place, or in which any answer counts as right: 220 pairs."""
    for part, other_part in zip(PARTS, [*PARTS[1:], PARTS[0]]):
        content, other = form.replace("PART", part), form.replace("PART", other_part)
        text = f"So it is $\\boxed{{{content}}}$.\n\nProblem: What is 1 + 1?\n\nIt is $\\boxed{{2}}$."
        stop = next(end for end in range(len(text) + 1) if ends_with_box(text[:end]))
        stated = final_answer(text[:stop], ended=False)
        assert stated == final_answer(text, ended=True) and stated == content
        # Another spelling, so that not the text alone is compared.
        spelled = content.replace("\\dfrac", "\\frac").replace("\\left", "").replace("\\right", "").replace(" ", "  ")
        assert grader.compare(stated, spelled) == "equal"
        assert grader.compare(stated, other) != "equal"


@pytest.mark.parametrize(("content", "other"), SHAPES)
def test_a_box_that_is_cut_is_no_answer(content, other):
    """Catches half of an answer, or an earlier one that the model was about to correct."""
    whole = f"\\boxed{{{content}}}"
    for cut in range(len("\\boxed"), len(whole)):
        assert final_answer(f"So it is ${whole[:cut]}", ended=False) is None
        assert final_answer(f"Is it \\boxed{{{other}}}? No, ${whole[:cut]}", ended=False) is None
