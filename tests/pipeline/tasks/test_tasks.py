"""The tasks themselves: from rows, or from a seed, to examples and prompts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.tasks import TASKS, DataRequest, TaskOptions, get_task
from pipeline.tasks.arithmetic import DEFAULT_LIMIT
from pipeline.tasks.arithmetic_kinds import DEFAULT_KINDS, FORMER_KINDS, KINDS, NUM_WORKED, kind_of

MANY = 400  # every question of the two small former kinds, and some of the third
FIXED = [name for name in KINDS if name not in FORMER_KINDS]


def made(**request):
    """Arithmetic questions."""
    return TASKS["arithmetic"].read(DataRequest(**request))


def made_of(kinds, **request):
    """Arithmetic questions of some kinds."""
    return get_task("arithmetic", options=TaskOptions(kinds=kinds)).read(DataRequest(**request))


def parsed(line):
    """``"3 + 4 = 7"`` as its sign, its operands without their order, and its value."""
    left, sign, right, value = re.fullmatch(r"(\d+) ([+*]) (\d+) = ?(\d*)", line).groups()
    return (sign, *sorted((int(left), int(right)))), int(value) if value else None


@pytest.fixture
def read(tmp_path):
    """Reads rows, written to a jsonl file, with a task."""

    def read_rows(task, *rows):
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
        return TASKS[task].read(DataRequest(data=str(file)))

    return read_rows


# -- arithmetic ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both_splits():
    """Nearly every question of the former kinds, of both splits."""
    return {split: made_of(",".join(FORMER_KINDS), split=split, limit=MANY) for split in ("train", "test")}


def test_train_and_test_share_no_question(both_splits):
    """Catches a held-out question that was trained on with its operands swapped."""
    asked = {
        split: {parsed(e.question.splitlines()[-1])[0] for e in examples} for split, examples in both_splits.items()
    }
    assert asked["train"] and asked["test"] and not asked["train"] & asked["test"]
    for kind in ("sums", "times-table"):
        assert sum(e.id.startswith(f"arithmetic-{s}-{kind}-") for s, part in both_splits.items() for e in part) == 100


def test_worked_examples_are_true_and_give_nothing_away(both_splits):
    """Catches a prompt that shows its own answer, shows a held-out question, or teaches a wrong sum."""
    held_out = {parsed(e.question.splitlines()[-1])[0] for e in both_splits["test"]}
    for example in both_splits["train"] + both_splits["test"]:
        *worked, question = map(parsed, example.question.splitlines())
        assert len(worked) == 4
        for (sign, left, right), value in (*worked, (question[0], int(example.answer))):
            assert value == (left * right if sign == "*" else left + right)
        assert not {problem for problem, _ in worked} & (held_out | {question[0]})
        assert question[1] is None and example.question.endswith("=")


def test_questions_follow_the_seed():
    """Catches questions from global random state, or a seed that changes nothing."""
    assert made(seed=3) == made(seed=3)
    assert {e.question for e in made(seed=3)} != {e.question for e in made(seed=4)}
    assert [e.id for e in made(seed=0, limit=2)] == [e.id for e in made(seed=0, limit=50)][:2]


def test_a_limit_keeps_the_kinds_in_turn():
    """Catches a small limit that gives one kind of question alone, or a limit that is ignored."""
    assert len(made()) == DEFAULT_LIMIT
    kinds = [kind_of(example.id) for example in made(limit=2 * len(DEFAULT_KINDS))]
    assert kinds == [*DEFAULT_KINDS, *DEFAULT_KINDS]


def test_ids_are_unique():
    """Catches two questions that share an id, within a split or between the two, or two kinds that share ids."""
    examples = [made_of(",".join(KINDS), split=split, limit=100_000) for split in ("train", "test")]
    ids = [example.id for part in examples for example in part]
    assert len(set(ids)) == len(ids) == sum(len(kind.asked(s)) for kind in KINDS.values() for s in ("train", "test"))


def test_the_default_kinds_are_many_and_large():
    """Catches a default of few kinds, a former one among them, and a kind or a default that is soon exhausted."""
    assert len(DEFAULT_KINDS) >= 12 and not set(DEFAULT_KINDS) & set(FORMER_KINDS)
    assert set(KINDS) == {*FORMER_KINDS, *DEFAULT_KINDS}, "a kind that is neither"
    sizes = {
        split: [len({problem.key for problem in KINDS[name].asked(split)}) for name in DEFAULT_KINDS]
        for split in ("train", "test")
    }
    assert sum(sizes["train"]) >= 20_000 and sum(sizes["test"]) >= 5_000
    assert all(len(KINDS[name].problems()) >= 300 for name in DEFAULT_KINDS)


@pytest.mark.parametrize("name", FIXED)
def test_worked_problems_are_fixed(name):
    """Catches worked problems that differ between prompts, that a prompt asks, that are held out, or that are alike."""
    kind = KINDS[name]
    worked = kind.worked()
    assert len({problem.key for problem in worked}) == NUM_WORKED == 4
    assert {problem.split for problem in worked} == {"train"}
    shown = [f"{problem.text} {problem.answer}" for problem in worked]
    for split, seed in (("train", 0), ("train", 3), ("test", 0)):
        examples = made_of(name, split=split, seed=seed, limit=20)
        assert all(example.question.split("\n")[:-1] == shown for example in examples)
    asked = {split: kind.asked(split) for split in ("train", "test")}
    keys = {problem.key for problem in worked}
    assert not keys & {problem.key for problems in asked.values() for problem in problems}
    assert len(asked["train"]) + len(asked["test"]) == len({problem.key for problem in kind.problems()}) - NUM_WORKED
    assert len(made_of(name, limit=100_000)) == len(asked["train"])


def test_a_question_is_asked_in_one_order():
    """Catches 3 + 4 and 4 + 3 on the two sides of a menu's split, and an order that is always the ascending one."""
    for name in FIXED:
        keys = [problem.key for problems in map(KINDS[name].asked, ("train", "test")) for problem in problems]
        assert len(set(keys)) == len(keys)
    ascending = [problem.name == "-".join(map(str, problem.key)) for problem in KINDS["larger"].asked("train")]
    assert 0.45 < sum(ascending) / len(ascending) < 0.55


@pytest.mark.parametrize("name", FIXED)
def test_no_two_questions_have_the_same_numbers(name):
    """Catches twins that no key tells apart, on the two sides of a split: the same story about eggs and about pens."""
    kind = KINDS[name]
    numbers = [
        sorted(re.findall(r"\d+", problem.text)) if kind.symmetric else re.findall(r"\d+", problem.text)
        for problems in (kind.worked(), kind.asked("train"), kind.asked("test"))
        for problem in problems
    ]
    assert len(set(map(tuple, numbers))) == len(numbers)


def test_no_calculation_is_asked_by_two_kinds():
    """Catches a story that asks what another kind asks without one: 12 - 3 with apples and without."""
    by_kind = {}
    for name in FIXED:
        calculations = by_kind[name] = set()
        for problem in KINDS[name].problems():
            # A whole calculation, no part of a longer one.
            if match := re.search(r"(?:^|: )(\d+) ([-+*]) (\d+) =$", problem.text):
                first, sign, second = match.groups()
                calculations.add((sign, *((first, second) if sign == "-" else sorted((first, second)))))
    every = [one for calculations in by_kind.values() for one in calculations]
    assert len(every) > 2500 and len(set(every)) == len(every)
    assert all(
        by_kind[name] for name in ("small-differences", "products", "round-products", "gains", "losses", "groups")
    )


@pytest.mark.parametrize("name", FIXED)
def test_worked_answers_are_balanced(name):
    """Catches a yes/no kind that shows one answer more often than the other, or the same one twice in a row."""
    answers = [problem.answer for problem in KINDS[name].worked()]
    kinds_of_answers = len({problem.answer for problem in KINDS[name].problems()})
    assert len(set(answers)) == min(NUM_WORKED, kinds_of_answers)
    assert {answers.count(answer) for answer in answers} == {NUM_WORKED // len(set(answers))}
    assert all(one != other for one, other in itertools.pairwise(answers))


def test_fixed_worked_problems_are_shown_in_rotated_order():
    """Catches a rendering of a kind with fixed worked problems that is the same prompt again."""
    [example] = made_of("comparisons", limit=1, renderings=4)
    ways = [example.question, *(way.question for way in example.renderings)]
    first = ways[0].split("\n")
    assert [way.split("\n") for way in ways] == [[*first[n:4], *first[:n], first[4]] for n in range(4)]


def test_runs_from_before_there_were_kinds_have_their_examples():
    """Catches an older run whose examples cannot be read again: another order, another number drawn, another id."""
    asked = itertools.product(("train", "test"), (0, 3), (1, 4), (192, 700))
    examples = [
        [
            example.to_json()
            for example in made_of(",".join(FORMER_KINDS), split=split, seed=seed, renderings=renderings, limit=limit)
        ]
        for split, seed, renderings, limit in asked
    ]
    digest = hashlib.sha256(json.dumps(examples).encode()).hexdigest()
    assert digest == "bc5024782ff7946bc52e3c7dfeae7dfdaae6a7dfc618b5f79866f2f59ff6e2b0"


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_asks_no_question_in_both_splits(name):
    """Catches a held-out question that is trained on, a problem that is there twice, and a kind too small to split."""
    problems = KINDS[name].problems()
    texts = {split: {problem.text for problem in problems if problem.split == split} for split in ("train", "test")}
    keys = {split: {problem.key for problem in problems if problem.split == split} for split in ("train", "test")}
    assert texts["train"] and texts["test"] and not texts["train"] & texts["test"] and not keys["train"] & keys["test"]
    assert len({problem.name for problem in problems}) == len(problems) == sum(map(len, texts.values()))
    assert all(problem.text == problem.text.strip() and problem.answer.strip() for problem in problems)
    assert abs(len(texts["test"]) / len(problems) - 0.25) < 0.1
    assert kind_of(f"arithmetic-test-{name}-{problems[0].name}") == name


def test_no_two_kinds_ask_one_question():
    """Catches a question that one kind trains and another holds out."""
    texts = [problem.text for kind in KINDS.values() for problem in kind.problems()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("name", "numbers", "text", "answer"),
    [
        ("small-differences", (250, 3), "250 - 3 =", "247"),
        ("products", (23, 4), "23 * 4 =", "92"),
        ("round-products", (600, 4), "600 * 4 =", "2400"),
        ("three-sums", (3, 9, 4), "Add three numbers: 3 + 9 + 4 =", "16"),
        ("stepwise-sums", (12, 9, 7), "12 + 9 + 7 = 21 + 7 =", "28"),
        ("sequences", (93, 5), "93, 98, 103,", "108"),
        ("descents", (104, 5), "104, 99, 94,", "89"),
        ("predecessors", (300,), "The number before 300 is", "299"),
        ("between", (299,), "The number between 299 and 301 is", "300"),
        ("next-tens", (190,), "The next ten after 190 is", "200"),
        ("next-tens", (191,), "The next ten after 191 is", "200"),
        ("rounded-tens", (14,), "14 is between 10 and 20, and nearer to", "10"),
        ("rounded-tens", (96,), "96 is between 90 and 100, and nearer to", "100"),
        ("rounded-hundreds", (149,), "149 is between 100 and 200, and nearer to", "100"),
        ("rounded-hundreds", (151,), "151 is between 100 and 200, and nearer to", "200"),
        ("larger", (31, 87), "The larger of 31 and 87 is", "87"),
        ("smaller", (31, 87), "The smaller of 31 and 87 is", "31"),
        ("largest-of-three", (31, 12, 20), "The largest of 31, 12 and 20 is", "31"),
        ("smallest-of-three", (31, 12, 20), "The smallest of 31, 12 and 20 is", "12"),
        ("comparisons", (31, 87), "31 > 87:", "No"),
        ("comparisons", (87, 31), "87 > 31:", "Yes"),
        ("true-or-false", (24, 33, 57), "24 + 33 = 57:", "true"),
        ("true-or-false", (5, 22, 32), "5 + 22 = 32:", "false"),
        ("finds", (9,), "Ann has 9 cards and finds one more. Now she has", "10"),
        ("gains", (19, 4), "Ann has 19 shells and gets 4 more: 19 + 4 =", "23"),
        ("losses", (12, 4), "Ann has 12 apples and gives 4 away: 12 - 4 =", "8"),
        ("groups", (3, 12), "There are 3 bags with 12 coins each: 3 * 12 =", "36"),
    ],
)
def test_a_kinds_answers_are_right(name, numbers, text, answer):
    """Catches a kind that asks one thing and takes the answer to another for right."""
    kind = KINDS[name]
    assert numbers in set(kind.numbers())
    assert (kind.text(*numbers), str(kind.answer(*numbers))) == (text, answer)


def test_half_of_the_claims_are_true():
    """Catches claims of which one answer is nearly always right."""
    answers = [problem.answer for problem in KINDS["true-or-false"].problems()]
    assert set(answers) == {"true", "false"} and abs(answers.count("true") / len(answers) - 0.5) < 0.05


def test_the_page_names_every_kind():
    """Catches a kind that nobody can find, and one that the page promises and that is not there."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "search.md").read_text()
    part = page[page.index("The kinds:\n") : page.index("Before the first actor searches")]
    assert set(re.findall(r"`([a-z-]+)`", part)) == set(KINDS)


def test_kinds_can_be_chosen():
    """Catches kinds that are ignored, and a wrong name that ends in a traceback."""
    examples = made_of("larger, between", limit=4)
    assert [kind_of(example.id) for example in examples] == ["larger", "between", "larger", "between"]
    assert {len(example.question.splitlines()) for example in examples} == {5}
    for kinds, message in (("larger,sum", "no kind 'sum'; choose of: sums, "), ("sums,sums", "names a kind twice")):
        with pytest.raises(UserError, match=message):
            made_of(kinds)
    with pytest.raises(UserError, match="--kinds goes with --task arithmetic, not 'arc'"):
        get_task("arc", options=TaskOptions(kinds="sums"))


def test_what_arithmetic_refuses():
    """Catches data that is silently not read, and a split that gives no question."""
    with pytest.raises(UserError, match="leave --data out"):
        made(data="rows.jsonl")
    with pytest.raises(UserError, match=r"no split 'validation'.*train, test"):
        made(split="validation")


# -- ARC ----------------------------------------------------------------------------------


def arc_row(labels="ABCD", key="C", **changes):
    """A row in the hub's schema."""
    texts = ["ice", "sand", "iron ore", "air"][: len(labels)]
    return {
        "id": "q1",
        "question": "Hard?",
        "choices": {"text": texts, "label": list(labels)},
        "answerKey": key,
    } | changes


@pytest.mark.parametrize(
    ("labels", "key"), [("ABCD", "C"), ("1234", "3"), ("1234", 3), ([1, 2, 3, 4], "3"), ("WXYZ", "Y")]
)
def test_arc_labels_of_any_kind_become_letters(read, labels, key):
    """Catches numeric labels that are shown, or compared, as they stand."""
    (example,) = read("arc", arc_row(labels, key))
    assert (example.id, example.answer, example.options) == ("q1", "C", ("A", "B", "C", "D"))
    assert "Hard?\nA. ice\nB. sand\nC. iron ore\nD. air\n" in example.question


def test_options_that_are_numbers_are_text(read):
    """Catches options that are refused, or shown as another number, because they are no strings."""
    (example,) = read("arc", arc_row(choices={"text": [2, 4.0, 6.5, "8"], "label": [1.0, 2.0, 3.0, 4.0]}, key="4"))
    assert "A. 2\nB. 4\nC. 6.5\nD. 8\n" in example.question and example.answer == "D"


def test_arc_by_likelihood_shows_no_options(read):
    """Catches the options' text in the prompt of the task that is to find them likely."""
    (example,) = read("arc-likelihood", arc_row())
    assert example.question == "Question: Hard?\nAnswer:"
    assert (example.answer, example.options) == ("iron ore", ("ice", "sand", "iron ore", "air"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (arc_row(key="E"), r"answer 'E' is not one of the options \['A', 'B', 'C', 'D'\]"),
        (arc_row("A", "A"), "two options or more, found 1"),
        (arc_row(choices={"text": ["ice"], "label": ["A", "B"]}, key="A"), "as many texts as labels"),
        (arc_row(choices={"text": ["ice", " "], "label": ["A", "B"]}, key="A"), "none of them empty"),
        (arc_row(choices={"text": ["ice", None], "label": ["A", "B"]}, key="A"), "texts and numbers, .* found None$"),
        (
            arc_row(choices={"text": ["ice", ["5"]], "label": ["A", "B"]}, key="A"),
            r"texts and numbers, .* found \['5'\]$",
        ),
        (arc_row(choices={"text": ["ice", "air"]}), "'text' and 'label' lists"),
        (arc_row(choices={"text": 5, "label": 5}), "'text' and 'label' lists"),
        (arc_row(choices={"text": "ice", "label": "ABC"}), "'text' and 'label' lists"),
        (arc_row(choices=["ice", "air"]), "'text' and 'label' lists"),
        (arc_row(choices=None), "column 'choices'"),
        (arc_row("AACD", "A"), "two options have one label"),
        (arc_row([1, "1", 2, 3], "2"), "two options have one label"),
        (arc_row(choices={"text": ["ice", "air\u202e"], "label": ["A", "B"]}), "'choices' holds a hidden character"),
        (
            arc_row(choices={"text": ["ice", "a" * 1_000_001], "label": ["A", "B"]}),
            "'choices' holds 1000001 characters",
        ),
        (arc_row(choices={"text": ["ice", "air"], "label": ["A", "\ud800"]}), "'choices' holds a character that is no"),
        ({"question": "Hard?", "answerKey": "A"}, "no column 'choices'; it has: question, answerKey"),
        (arc_row(choices={"text": ["x"] * 27, "label": list(range(27))}, key="1"), "more than 26"),
    ],
)
@pytest.mark.parametrize("task", ["arc", "arc-likelihood"])
def test_a_bad_arc_row_is_named(read, task, row, message):
    """Catches a malformed question that is searched, or ends in a traceback."""
    with pytest.raises(UserError, match=rf"line 1: .*{message}"):
        read(task, row)


# -- word problems and own rows -----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("3 + 4 = 7\n#### 7", "7"), ("#### 1,234,567", "1234567"), ("a #### b\n#### -5 ", "-5"), ("####0.5", "0.5")],
)
def test_gsm8k_reference_is_behind_the_marks(read, answer, reference):
    """Catches a reference with its solution, its spaces or its thousands separators."""
    (example,) = read("gsm8k", {"question": "How many?", "answer": answer})
    assert example.answer == reference
    assert example.question.startswith("How many?\n") and r"\boxed{" in example.question


@pytest.mark.parametrize("answer", ["7", "the answer is 7 ###", "7 #### ", "7 #### ,"])
def test_gsm8k_without_a_final_answer(read, answer):
    """Catches a whole solution that is taken for the reference."""
    with pytest.raises(UserError, match=r"line 1: .*no final answer after '####'"):
        read("gsm8k", {"question": "How many?", "answer": answer})


@pytest.mark.parametrize("question", ["query", "problem", "question"])
@pytest.mark.parametrize("answer", ["gt_ans", "answer"])
def test_dart_math_columns(read, question, answer):
    """Catches a column name of one of DART-Math's releases that is not known."""
    (example,) = read("dart-math", {question: "Solve.", answer: r" \frac{1}{2} "})
    assert example.question.startswith("Solve.\n") and example.answer == r"\frac{1}{2}"


def test_dart_math_without_its_columns(read):
    """Catches an error that does not say which columns would do."""
    with pytest.raises(UserError, match="no column 'query' or 'problem' or 'question'; it has: text"):
        read("dart-math", {"text": "Solve."})


def test_own_rows_keep_their_prompt_to_the_letter(read):
    """Catches a prompt that is stripped, or an answer that keeps spaces nothing could match."""
    (example,) = read("jsonl", {"prompt": " a\n b ", "answer": " two words\n"})
    assert (example.question, example.answer) == (" a\n b ", "two words")


def own_rows(tmp_path, *rows, **options):
    """Own rows, read with options."""
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return get_task("jsonl", options=TaskOptions(**options)).read(DataRequest(data=str(file)))


def test_several_accepted_answers(tmp_path):
    """Catches a list that is read as one text, an answer that is there twice, and a changed fingerprint of old rows."""
    several, one = own_rows(tmp_path, {"prompt": "?", "answer": ["USA", " U.S. ", "USA"]}, {"prompt": "?", "answer": 5})
    assert several.references == ("USA", "U.S.") and one.references == ("5",)
    assert several.to_json()["also_accepted"] == ("U.S.",) and "also_accepted" not in one.to_json()


def test_own_columns(tmp_path):
    """Catches a column that is named and not read."""
    row = {"q": "2 + 2?", "a": "4", "prompt": "no", "answer": "no"}
    [example] = own_rows(tmp_path, row, prompt_column="q", answer_column="a")
    assert (example.question, example.answer) == ("2 + 2?", "4")
    with pytest.raises(UserError, match="line 1: there is no column 'b'"):
        own_rows(tmp_path, row, answer_column="b")


@pytest.mark.parametrize(
    ("answer", "options", "message"),
    [
        ("Paris", {"match": "number"}, "line 1: the answer 'Paris' holds no number"),
        (["1", "("], {"match": "regex"}, r"line 1: the answer '\(' is no regular expression"),
        ([], {}, "line 1: column 'answer' must hold a text or a list of texts, found \\[\\]"),
        (["Rome", None], {}, "line 1: column 'answer' must hold a text or a list of texts"),
        (["a\nb"], {}, "line 1: the answer has several lines"),
        (["a\u202eb"], {}, "line 1: column 'answer' holds a hidden character"),
    ],
)
def test_own_rows_that_nothing_could_match(tmp_path, answer, options, message):
    """Catches a search of rows on which no answer can be right."""
    with pytest.raises(UserError, match=message):
        own_rows(tmp_path, {"prompt": "?", "answer": answer}, **options)


# -- choosing one -------------------------------------------------------------------------


def test_get_task():
    """Catches a task whose length of answers is changed for everybody."""
    assert {name: get_task(name).name for name in TASKS} == {name: name for name in TASKS}
    assert get_task("gsm8k", max_new_tokens=5).scoring.max_new_tokens == 5  # type: ignore[attr-defined]
    assert get_task("gsm8k").scoring.max_new_tokens == 256  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "tokens", "message"),
    [
        ("mmlu", None, "unknown task 'mmlu'; choose one of: arithmetic, arc,"),
        ("jsnol", None, "unknown task 'jsnol'; did you mean 'jsonl'"),
        ("arc", 5, "'arc' generates no text; leave --max-new-tokens out"),
        ("gsm8k", 0, "--max-new-tokens must be at least 1, got 0"),
    ],
)
def test_get_task_refusals(name, tokens, message):
    """Catches a mistyped task, or an option without effect, that passes."""
    with pytest.raises(UserError, match=message):
        get_task(name, max_new_tokens=tokens)
