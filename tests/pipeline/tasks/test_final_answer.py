"""The final answer that a solution states."""

from __future__ import annotations

import pytest

from pipeline.tasks.scoring.final_answer import ends_with_box, final_answer


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
    assert final_answer(text + behind, ended=False) == f"\\boxed{{{content}}}"
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
    assert final_answer(text, ended=False) == (None if answer is None else f"\\boxed{{{answer}}}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("We add both. The answer is 5.", "5"),
        ("The final answer is: $12$", "12"),
        ("**Answer:** 12", "12"),
        ("The answer is 3. No, the answer is 4.\nGoodbye.", "4"),
        ("The answer is 3.5 apples.", "3.5 apples"),
        ("We add the blue and the white.\n\nStep 3: Now the sum of both is the", None),
        ("So we divide the cups by 20- 20- 20- 20- 20-", None),
        ("5", None),
        ("The answer is", None),
    ],
)
def test_sentences_count_where_the_text_has_ended(text, answer):
    """Catches the last number of a text that is taken for its answer, and a sentence that was cut."""
    assert final_answer(text, ended=True) == (None if answer is None else f"The answer is {answer}.")
    assert final_answer(text, ended=False) is None
