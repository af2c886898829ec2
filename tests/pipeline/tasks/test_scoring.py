"""Judging answers with a stub model: every verdict must be the one that plain greedy decoding gives."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pipeline.program import LayerProgram
from pipeline.tasks.matching import matches
from pipeline.tasks.scoring.choice import Choice
from pipeline.tasks.scoring.exact_match import ExactMatch
from pipeline.tasks.scoring.graded import Graded
from pipeline.tasks.scoring.matched_line import MatchedLine
from pipeline.tasks.types import Example, PreparedExample

END = 0
#: Answers can be reached through several of these: "12" whole or by digits, "é" by its bytes, "\n" merged.
PIECES = [b"<end>", *(p.encode() for p in ("1", "2", "3", "12", "23", " ", "\n", "2\n", "é")), b"\xc3", b"\xa9"]
ANSWERS = {"1": [1], "12": [1, 2], "123": [4, 3], "1 2": [6, 1, 6, 2], "é": [6, 9], "1é": [1, 10, 11], "212": [2, 4]}
PROMPT = [6, 6]
PROGRAM = LayerProgram.identity(3)


class Tokenizer:
    """Token ids are indices into the pieces; ``END`` is the one special token."""

    def __init__(self, pieces):
        self.pieces = pieces

    def decode(self, tokens, skip_special_tokens=False):
        kept = [token for token in tokens if not (skip_special_tokens and token == END)]
        return b"".join(self.pieces[token] for token in kept).decode(errors="replace")


class StubModel:
    """A model whose next-token logits are ``prefer(program, tokens so far)``; it counts its passes.

    Texts beyond the length ``switch`` are read with ``long(program, tokens so far)`` from their first token on.
    """

    end_tokens = frozenset([END])

    def __init__(self, pieces, prefer, *, switch=math.inf, long=None):
        self.tokenizer, self.prefer, self.layers_run = Tokenizer(pieces), prefer, 0
        self.switch, self.long = switch, long

    def next_logits(self, program, tokens, length=None):
        """What follows some tokens, in a text of so many."""
        beyond = (length or len(tokens)) > self.switch
        return (self.long if beyond else self.prefer)(program, tokens)

    def reads_alike(self, length, longer):
        return (length > self.switch) == (longer > self.switch)

    def logits(self, token_ids, programs, *, starts):
        self.layers_run += sum(len(program) for program in programs)
        return [
            torch.tensor([self.next_logits(program, ids[: at + 1], len(ids)) for at in range(start, len(ids))])
            for ids, program, start in zip(token_ids, programs, starts)
        ]

    def decode(self, token_ids, programs, *, max_new_tokens, stop, begun=None):
        rows = []
        for row, (ids, program) in enumerate(zip(token_ids, programs)):
            tokens, gap = list(begun[row]) if begun else [], math.inf
            while len(tokens) < max_new_tokens and END not in tokens and not (tokens and stop(row, tokens)):
                top = torch.tensor(self.next_logits(program, ids + tokens)).topk(2)
                tokens.append(int(top.indices[0]))
                gap = min(gap, float(top.values[0] - top.values[1]))
            self.layers_run += len(tokens) * len(program)
            rows.append(SimpleNamespace(tokens=tokens, gap=gap, passes=len(tokens)))
        return rows


def question(answer, answers, options=(), prompt_ids=PROMPT):
    """A question whose tokens are given."""
    example = Example(id="q", task="t", question="?", answer=answer, options=options)
    return PreparedExample(example=example, prompt="?", prompt_ids=list(prompt_ids), answers=answers)


def said_by_greedy_decoding(model, asked, program, max_new_tokens):
    """A plain loop of arg-max tokens, by no code of ours: its first line, its tokens, whether the limit cut it."""
    tokens, text = [], ""
    while len(tokens) < max_new_tokens and END not in tokens and "\n" not in text.lstrip(" "):
        logits = model.next_logits(program, asked.prompt_ids + tokens)
        tokens.append(logits.index(max(logits)))
        text = model.tokenizer.decode(tokens, skip_special_tokens=True)
    cut = END not in tokens and "\n" not in text.lstrip(" ")
    return text.lstrip(" ").split("\n")[0].strip(), tokens, cut


def random_model(seed, answers, switch=math.inf):
    """A random model that leans towards writing the answers, and then towards ending."""

    @functools.lru_cache(4096)
    def logits_of(program, tokens, beyond):
        rng = random.Random(f"{seed} {program} {list(tokens)}{beyond}")
        written = b"".join(PIECES[token] for token in tokens[len(PROMPT) + 1 :]).lstrip(b" ")
        wanted = [f"{answer}\n".encode() for answer in answers]
        logits = [rng.gauss(0, 1) + 2.5 * any(w.startswith(written + piece) for w in wanted) for piece in PIECES]
        logits[END] += 2.0 * (written.decode(errors="replace") in answers)
        return logits

    def prefer(program, tokens, beyond=""):
        return logits_of(str(program), tuple(tokens), beyond)

    return StubModel(PIECES, prefer, switch=switch, long=functools.partial(prefer, beyond="beyond"))


# -- exact match --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switch", "need_response"),
    [
        (math.inf, False),
        (len(PROMPT) + 2, True),
        pytest.param(math.inf, True, marks=pytest.mark.exhaustive),
        pytest.param(len(PROMPT) + 2, False, marks=pytest.mark.exhaustive),
    ],
)
def test_right_if_and_only_if_greedy_decoding_says_so(need_response, switch):
    """Catches a shortcut through teacher forcing whose verdict is not that of generating the answer.

    With a switch: one that reads a prompt as if it were as long as its answer makes it.
    """
    seen = dict.fromkeys(("right", "wrong", "by other tokens", "went on", "by line end", "by end token", "unread"), 0)
    scoring = ExactMatch(max_new_tokens=4)
    for seed in range(400):
        chosen = random.Random(seed).sample(sorted(ANSWERS), 3)
        model = random_model(seed, chosen, switch)
        asked = [question(a, [ANSWERS[a]], prompt_ids=[*PROMPT, i]) for i, a in enumerate(chosen)]
        programs = [LayerProgram((0, i), 3) for i in range(3)]
        outcomes = scoring.score(model, asked, programs, need_response=need_response)
        assert model.layers_run == sum(outcome.layer_executions for outcome in outcomes)
        for q, program, outcome in zip(asked, programs, outcomes):
            answer, reference = q.example.answer, q.answers[0]
            said, tokens, cut = said_by_greedy_decoding(model, q, program, max(4, len(reference) + 1))
            assert outcome.correct == (said == answer and not cut), (seed, said, answer)
            assert (outcome.margin > 0) == outcome.correct
            assert outcome.response == said or (outcome.response is None and not need_response)
            assert [outcome] == scoring.score(model, [q], [program], need_response=need_response)
            seen["right" if outcome.correct else "wrong"] += 1
            seen["by other tokens"] += outcome.correct and tokens[: len(reference)] != reference
            seen["went on"] += said.startswith(answer) and said != answer
            seen["by line end"] += outcome.correct and tokens[-1] in (7, 8)
            seen["by end token"] += outcome.correct and tokens[-1] == END
            seen["unread"] += outcome.response is None
    assert all(count > 20 or (name == "unread" and need_response) for name, count in seen.items()), seen


def scripted(pieces, script):
    """A model that writes one text after the prompt, 2.0 ahead of everything else."""

    def prefer(program, tokens):
        logits = [0.0] * len(pieces)
        written = tokens[len(PROMPT) :]
        logits[script[len(written)] if written == script[: len(written)] and len(written) < len(script) else END] = 2.0
        return logits

    return StubModel(pieces, prefer)


@pytest.mark.parametrize("need_response", [False, True])
@pytest.mark.parametrize(("after", "right"), [([6, 6, 6, 6, 6], False), ([6, 7], True), ([6, END], True), ([], True)])
def test_a_text_that_the_limit_cuts_is_no_answer(after, right, need_response):
    """Catches a right verdict where the model only begins with the reference: a text that the limit cuts may go on."""
    asked = question("12", [[1, 2]])
    model = scripted(PIECES, [1, 2, *after])
    [outcome] = ExactMatch(max_new_tokens=5).score(model, [asked], [PROGRAM], need_response=need_response)
    assert outcome.correct == right and (outcome.margin > 0) == right
    assert outcome.reason == ("ended" if right else "cut")


@pytest.mark.parametrize(
    ("script", "correct", "response", "passes"),
    [
        ([1, 2, END], True, "12", 1),  # the reference's own tokens
        ([1, 2, 7], True, "12", 1),  # ended by a new line
        ([1, 8], True, "12", 1),  # the last token holds the line end too
        ([4, END], True, "12", 3),  # other tokens
        ([1, 2, 6, END], True, "12", 5),  # a space behind it may lead anywhere
        ([1, 2, 3, END], False, None, 1),  # it goes on
        ([1, END], False, None, 1),  # it stops short
        ([7, 1, 2], False, None, 1),  # an empty first line
    ],
)
def test_how_an_answer_may_end(script, correct, response, passes):
    """Catches generation where one pass settles the verdict, and a verdict before anything settles it."""
    asked = [question("12", [[1, 2]])]
    (outcome,) = ExactMatch(max_new_tokens=4).score(scripted(PIECES, script), asked, [PROGRAM], need_response=False)
    assert (outcome.correct, outcome.response) == (correct, response)
    assert outcome.layer_executions == passes * len(PROGRAM)
    assert abs(outcome.margin) == 2.0


# -- choice -------------------------------------------------------------------------------


def log_likelihood(model, asked, answer):
    """Sum of the answer's tokens' log-probabilities, by hand."""
    total = 0.0
    for at, token in enumerate(answer):
        logits = torch.tensor(model.prefer(PROGRAM, asked.prompt_ids + answer[:at]), dtype=torch.float64)
        total += float(logits.log_softmax(-1)[token])
    return total


@pytest.mark.parametrize("per_character", [False, True])
@pytest.mark.parametrize("answers", [[[1], [2], [3]], [[1], [2, 3], [4, 6, 1]]])
def test_the_likeliest_option_is_the_answer(answers, per_character):
    """Catches a token read at the wrong position, or a normalisation that is not by the option's text."""
    options = ("x", "four", "twelve chars")
    verdicts = set()
    for seed in range(60):
        model = random_model(seed, [])
        asked = question(options[seed % 3], answers, options)
        scores = [log_likelihood(model, asked, a) / (len(o) if per_character else 1) for a, o in zip(answers, options)]
        own = scores.pop(seed % 3)
        scoring = Choice(per_character=per_character)
        # Beside a question of the other kind, which must not matter.
        beside = question("a", [[1, 2], [3]], ("a", "b"))
        outcome = scoring.score(model, [beside, asked], [PROGRAM] * 2, need_response=False)[1]
        assert outcome.margin == pytest.approx(own - max(scores), abs=1e-5)
        assert outcome.correct == (own > max(scores)) == (outcome.margin > 0) == (outcome.response == options[seed % 3])
        verdicts.add(outcome.correct)
    assert verdicts == {True, False}


def test_one_pass_and_a_pass_an_option_agree():
    """Catches letters that are judged otherwise once one option needs two tokens."""
    for seed in range(60):
        model = random_model(seed, [])
        scoring, both = Choice(per_character=False), []
        for extra in ([], [[5, 5, 5, 5, 5, 5]]):
            options = ("A", "B", "C", "hopeless")[: 3 + len(extra)]
            asked = question("B", [[1], [2], [3], *extra], options)
            both += scoring.score(model, [asked], [PROGRAM], need_response=False)
        assert both[0].correct == both[1].correct and both[0].response == both[1].response
        assert both[0].margin == pytest.approx(both[1].margin, abs=1e-5)
        assert [outcome.layer_executions for outcome in both] == [3, 12]


@pytest.mark.parametrize("scoring", [Choice(per_character=False), ExactMatch(max_new_tokens=2)])
def test_logits_that_are_not_numbers_are_never_right(scoring):
    """Catches an overflow that is rewarded because the first option wins every comparison with NaN."""
    model = StubModel(PIECES, lambda program, tokens: [math.nan] * len(PIECES))
    for answer in range(1, len(PIECES)):
        asked = question("x", [[answer], [END]], ("x", "y"))
        for outcome in scoring.score(model, [asked], [PROGRAM], need_response=False):
            assert (outcome.correct, outcome.reason, outcome.margin) == (False, "ungradable", -math.inf)


@pytest.mark.parametrize("answer", ["x", "y", "z"])
@pytest.mark.parametrize("overflows", [1, 2, 3])
def test_one_option_that_is_no_number_leaves_no_verdict(answer, overflows):
    """Catches an overflow that ``max`` overlooks because another option comes first."""
    model = StubModel(PIECES, lambda program, tokens: [math.nan if tokens[-1] == overflows else 1.0] * len(PIECES))
    asked = question(answer, [[1, 4], [2, 4], [3, 4]], ("x", "y", "z"))
    for per_character in (False, True):
        [outcome] = Choice(per_character=per_character).score(model, [asked], [PROGRAM], need_response=False)
        assert not outcome.correct and outcome.margin == -math.inf


@pytest.mark.parametrize("reference", ["x", "y", "z"])
def test_the_order_of_options_decides_nothing(reference):
    """Catches the first of two options with equal logits, as bfloat16 often gives them, that counts as right."""
    model = StubModel(PIECES, lambda program, tokens: [0.0, 2.0, 2.0, 1.0, *[0.0] * (len(PIECES) - 4)])
    asked = question(reference, [[1], [2], [3]], ("x", "y", "z"))
    [outcome] = Choice(per_character=False).score(model, [asked], [PROGRAM], need_response=True)
    assert (outcome.correct, outcome.reason) == (False, "unequal" if reference == "z" else "tie")
    assert outcome.margin == (-1.0 if reference == "z" else 0.0)


@pytest.mark.parametrize("reference", [1, 2])
def test_the_order_of_the_vocabulary_decides_nothing(reference):
    """Catches an answer that is right, or wrong as another, because its token comes first of two with equal logits."""

    def prefer(program, tokens):
        logits = [0.0, 3.0, 3.0] if len(tokens) == len(PROMPT) else [3.0, 0.0, 0.0]
        return [*logits, *[0.0] * (len(PIECES) - 3)]

    asked = question(str(reference), [[reference]])
    for need_response in (False, True):
        [outcome] = ExactMatch(max_new_tokens=2).score(
            StubModel(PIECES, prefer), [asked], [PROGRAM], need_response=need_response
        )
        assert (outcome.correct, outcome.reason, outcome.margin) == (False, "tie", 0.0)


# -- graded -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read", "stated"),
    [
        (r"so \boxed{3} and more", r"so \boxed{3}", "3"),
        (r"\boxed{\frac{1}{2}}, done", r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\frac{\sqrt{2}}{2}}, done", r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{\sqrt{2}}{2}"),
        (r"It is \boxed 42 then.", r"It is \boxed 42", "42"),
        ("The answer is 3.", "The answer is 3.", "3"),
        ("no box, 3", "no box, 3", None),
        ("3" * 80, "3" * 60, None),
        (" " * 45 + "The answer is 3.", "The answer is 3", None),
        (r"<think>\boxed{3}</think>\boxed{4}", r"<think>\boxed{3}</think>\boxed{4}", "4"),
    ],
)
@pytest.mark.parametrize("comparison", ["equal", "unequal", "ungradable"])
def test_a_solution_ends_with_its_answer(text, read, stated, comparison):
    """Catches a cut text that counts, a solution cut inside its answer or run on behind it, or a wrong sign."""
    told = []

    def compare(answer, reference):
        told.append((answer, reference))
        return comparison

    grader = SimpleNamespace(compare=compare)
    model = scripted([b"<end>", *(bytes([byte]) for byte in range(1, 256))], [*text.encode(), END])
    asked = [question("3", [])]
    (outcome,) = Graded(max_new_tokens=60, grader=grader).score(model, asked, [PROGRAM], need_response=False)
    assert told == ([] if stated is None else [(stated, "3")]) and outcome.response == read
    correct = comparison == "equal" and stated is not None
    unstated = "no final answer" if text == read else "cut"
    assert outcome.reason == (unstated if stated is None else "ended" if correct else comparison)
    assert (outcome.correct, outcome.margin) == (correct, 2.0 if correct else -2.0)
    assert outcome.layer_executions == model.layers_run


# -- matched line -------------------------------------------------------------------------

#: References of each rule that the stub's pieces can spell.
MATCHED = {
    "normalized": ("12", "1 2", "é"),
    "contains": ("1", "2", "12"),
    "number": ("1", "2", "12"),
    "regex": ("1.*", "2?1", "é+"),
}


@pytest.mark.parametrize("need_response", [False, True])
@pytest.mark.parametrize("rule", sorted(MATCHED))
def test_a_line_matches_if_and_only_if_that_of_greedy_decoding_does(rule, need_response):
    """Catches a shortcut, a stop or a start behind known tokens whose verdict is not that of generating the answer."""
    seen = dict.fromkeys(("right", "wrong", "second", "cut"), 0)
    scoring = MatchedLine(max_new_tokens=4, match=rule)
    for seed in range(200):
        model = random_model(seed, list(MATCHED[rule]) if rule != "regex" else ["12", "21", "é"])
        first, second = random.Random(seed).sample(MATCHED[rule], 2)
        asked = question(first, [] if rule == "regex" else [ANSWERS.get(first, [2])], prompt_ids=[*PROMPT, 1])
        asked = replace(asked, example=replace(asked.example, also_accepted=(second,)))
        [outcome] = scoring.score(model, [asked], [PROGRAM], need_response=need_response)
        said, cut = line_of_greedy_decoding(model, asked, 4)
        assert outcome.correct == (not cut and matches(rule, said, (first, second))), (seed, said)
        # An answer that has gone wrong already is not read on until it is cut.
        given_up = not need_response and not outcome.correct and rule == "normalized"
        assert (
            outcome.reason == ("ended" if outcome.correct else "cut" if cut and not given_up else "unequal") or given_up
        )
        assert (outcome.margin > 0) == outcome.correct
        assert outcome.response == said or (outcome.response is None and not need_response and not outcome.correct)
        assert model.layers_run == outcome.layer_executions
        beside = scoring.score(model, [asked] * 2, [LayerProgram((0,), 3), PROGRAM], need_response=need_response)
        assert beside[1] == outcome
        seen["right" if outcome.correct else "wrong"] += 1
        seen["second"] += outcome.correct and not matches(rule, said, [first])
        seen["cut"] += cut
    assert all(count > 5 for count in seen.values()), seen


def line_of_greedy_decoding(model, asked, max_new_tokens):
    """A plain loop of arg-max tokens, by no code of ours: its first line that is not empty, and whether it was cut."""
    tokens, text = [], ""
    while len(tokens) < max_new_tokens and END not in tokens and "\n" not in text.lstrip():
        logits = model.next_logits(PROGRAM, asked.prompt_ids + tokens)
        tokens.append(logits.index(max(logits)))
        text = model.tokenizer.decode(tokens, skip_special_tokens=True)
    return text.lstrip().split("\n")[0].rstrip(), END not in tokens and "\n" not in text.lstrip()


@pytest.mark.parametrize(("script", "passes"), [([1, 2, END], 1), ([3, END], 1), ([1, 2, 6, END], 5), ([4, END], 3)])
def test_a_matched_line_is_written_only_where_its_end_is_open(script, passes):
    """Catches tokens generated for an answer that the forced pass decides: a search would take many times as long."""
    scoring = MatchedLine(max_new_tokens=4, match="normalized")
    [outcome] = scoring.score(scripted(PIECES, script), [question("12", [[1, 2]])], [PROGRAM], need_response=False)
    assert outcome.layer_executions == passes * len(PROGRAM)


def test_an_exact_match_accepts_each_of_several_answers():
    """Catches a list of accepted answers of which only the first counts, and a third answer that counts too."""
    for script, right in (([1, 2, END], True), ([3, END], True), ([2, END], False)):
        asked = question("12", [[1, 2]])
        asked = replace(asked, example=replace(asked.example, also_accepted=("3",)))
        for need_response in (False, True):
            [outcome] = ExactMatch(max_new_tokens=4).score(
                scripted(PIECES, script), [asked], [PROGRAM], need_response=need_response
            )
            assert outcome.correct == right and (outcome.margin > 0) == right
