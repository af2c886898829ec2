"""Adapting to one input: votes that know no answer, programs that give one, and a trial that judges at the end."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tiny import NUM_LAYERS, save_tiny_model, write_questions

import pipeline
from pipeline.adaptation.adapt import AdaptConfig, adapt, adapt_example
from pipeline.adaptation.voting import Vote, _shares, answers, poll, voters
from pipeline.adaptation.voting_trial import AdaptingActor, TrialRequest, TriedExample, judge, try_adaptation, write
from pipeline.cli.main import main
from pipeline.distributed.installation import installation
from pipeline.engine import FrozenModel, materialize
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.prior import Evaluation, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.config import SearchConfig
from pipeline.tasks import DataRequest, Example, TaskOptions, get_task

IDENTITY = LayerProgram.identity(NUM_LAYERS)
PROMPT = "one, two, three,"
#: A random model writes bytes without end: answers are cut after a few.
TOKENS = 3
OTHER_PRIOR = fit_prior(
    [Evaluation(example_id="e", program=LayerProgram.identity(4), correct=True, margin=1.0)], compare_margins=True
)
FEW = AdaptConfig(search=SearchConfig(action_space="cola", simulations=40, budget=2.0), votes=12, leaves=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return FrozenModel.load(str(folder), device="cpu", dtype="float32", cache_bytes=1 << 24)


@pytest.fixture(scope="module")
def choices(tmp_path_factory):
    file = write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl", 6)
    return DataRequest(data=str(file))


# -- votes -----------------------------------------------------------------------------------


@given(st.integers(1, 12), st.integers(1, 60), st.integers(0, 3))
def test_voters_are_the_model_and_its_neighbours(depth, number, seed):
    """Catches a program that votes twice, one that is far from the model, and a draw that changes."""
    programs = voters(depth, number, seed)
    assert programs[0] == LayerProgram.identity(depth) and len(set(programs)) == len(programs) <= number
    assert all(sum(abs(count - 1) for count in program.counts) in (1, 2) for program in programs[1:])
    assert programs == voters(depth, number, seed)


def test_votes_count_by_how_sure_they_are():
    """Catches a show of hands, a vote of a broken program, and a silent program that wins."""

    def vote(response, margin):
        return Vote(program=IDENTITY, response=response, margin=margin)

    shares = _shares([vote("a", 1.0), vote("b", 2.5), vote("a", 0.5), vote("", 9.0), vote("c", math.nan)])
    assert list(shares) == ["b", "a"] and shares == pytest.approx({"b": 2.5 / 4, "a": 1.5 / 4})
    assert list(_shares([vote("a", 1.0), vote("b", 1.0)])) == ["a", "b"], "of equals the base model's leads"
    assert _shares([vote("", 1.0), vote("a", -1.0), vote("b", math.inf)]) == {}


def test_each_program_says_what_stock_transformers_says(model):
    """Catches votes by another program's answer."""
    task = get_task("jsonl", max_new_tokens=TOKENS)
    example = Example(id="e", task="jsonl", question=PROMPT, answer="")
    programs = voters(NUM_LAYERS, 12, 0)
    ids = model.tokenizer(PROMPT, return_tensors="pt").input_ids
    for program, said in zip(programs, answers(model, task, example, programs), strict=True):
        stock = materialize(model.hf_model, program)
        new = stock.generate(ids, attention_mask=ids.new_ones(ids.shape), max_new_tokens=TOKENS, do_sample=False)
        text = model.tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
        assert said == text.lstrip(" ").partition("\n")[0].strip()


@pytest.mark.parametrize("options", [(), ("red", "green", "blue")])
def test_the_answer_is_not_looked_at(model, options):
    """Catches the mistake that makes every trial worthless: a vote that knows the reference."""
    task = get_task("arc-likelihood") if options else get_task("jsonl", max_new_tokens=TOKENS)
    example = Example(id="e", task="t", question=PROMPT, answer=options[0] if options else "x", options=options)
    programs = voters(NUM_LAYERS, 8, 0)
    other = replace(
        example,
        answer=options[1] if options else "something else",
        also_accepted=tuple(set(answers(model, task, example, programs))),
    )
    assert poll(model, task, example, programs) == poll(model, task, other, programs)


# -- one input -------------------------------------------------------------------------------


def test_with_an_answer_the_program_gives_it(model):
    """Catches a program that gives another answer, and a base answer that is the wanted one."""
    options = ("red", "green", "blue", "white")
    task = get_task("arc-likelihood")
    example = Example(id="e", task="t", question=PROMPT, answer="", options=options)
    [base] = answers(model, task, example, [IDENTITY])
    corrected = 0
    for wanted in options:
        found = adapt(model, PROMPT, wanted, options=options, config=FEW)
        assert (found.answer, found.base_answer, found.poll, found.agreement) == (wanted, base, None, None)
        programs = [verdict.program for verdict in found.verdicts]
        said = answers(model, task, example, programs)
        assert [verdict.correct for verdict in found.verdicts] == [text == wanted for text in said]
        giving = [program for program, text in zip(programs, said) if text == wanted]
        assert len(found.program or "") == min(map(len, giving), default=0)
        lengths = [len(verdict.program) for verdict in found.pareto]
        assert lengths == sorted(set(lengths)) and len(found.verdicts) == 41
        corrected += wanted != base and found.program is not None
    assert corrected, "nothing was tested but the base model's own answer"


def test_without_an_answer_the_vote_takes_its_place(model):
    """Catches a search for the base model's answer where another answer wins the vote."""
    options = ("red", "green", "blue", "white")
    found = adapt(model, PROMPT, options=options, config=FEW)
    again = poll(
        model,
        get_task("arc-likelihood"),
        Example(id="e", task="t", question=PROMPT, answer="red", options=options),
        voters(NUM_LAYERS, FEW.votes, FEW.seed),
    )
    assert found.answer in options and found.agreement == max(found.poll.shares.values())
    assert found.poll == again and sum(found.poll.shares.values()) == pytest.approx(1)
    known = adapt(model, PROMPT, found.answer, options=options, config=FEW)
    assert known.verdicts == found.verdicts and known.program == found.program


def test_no_program_is_looked_for_where_the_user_wants_none(model):
    """Catches a trial that pays for searches which change no answer."""
    found = adapt(model, PROMPT, options=("a", "b"), config=replace(FEW, look_for_program=False))
    assert found.program is None and found.verdicts == [] and found.answer in ("a", "b")


def test_the_front_door():
    """Catches a name of the library that is a module."""
    assert pipeline.adapt is adapt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"answer": " "}, "the answer is empty"),
        ({"answer": "a\nb"}, "several lines"),
        ({"options": ["a"]}, "two or more different texts"),
        ({"options": ["a", "a"]}, "two or more different texts"),
        ({"options": ["a", " "]}, "two or more different texts"),
        ({"options": "ab"}, "put one text into brackets"),
        ({"options": ["a", "b"], "answer": "c"}, "'c' is not one of the options: 'a', 'b'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"prompt": "word " * 200}, "shorten it"),
        ({"config": replace(FEW, search=replace(FEW.search, budget=0.1))}, "less than one of the model's 6 layers"),
        ({"prior": OTHER_PRIOR}, "the prior is for 4 layers, the model has 6"),
    ],
)
def test_what_cannot_be_asked_is_said(model, arguments, message):
    """Catches a traceback from deep inside, or a search for nothing."""
    with pytest.raises(UserError, match=message):
        adapt(model, **{"prompt": PROMPT, "config": FEW, **arguments})


def test_answers_without_an_end_are_not_searched_for(folder):
    """Catches a search for a text that the limit cuts: such a text is no answer that a program could give."""
    said = command("--model", folder, "--prompt", PROMPT, "--max-new-tokens", 2, "--votes", 4)
    assert "None of 4 programs came to the end of an answer" in said and "Pareto set" not in said


def test_long_solutions_are_not_voted_on(model):
    """Catches a vote among texts of which no two are alike."""
    example = Example(id="e", task="gsm8k", question="1 + 1?", answer="2")
    with pytest.raises(UserError, match="programs cannot vote"):
        adapt_example(model, get_task("gsm8k"), example, answer_known=False, config=FEW)


def test_other_accepted_answers_are_forgotten_with_the_reference(model):
    """Catches a search for the voted answer that also calls the data's other accepted answers right."""
    task = get_task("arc-likelihood")
    seen = []

    def prepare(example, tokenizer):
        seen.append(example)
        return task.prepare(example, tokenizer)

    class Watched:
        def __getattr__(self, name):
            return prepare if name == "prepare" else getattr(task, name)

    example = Example(id="e", task="t", question=PROMPT, answer="x", options=("x", "y"), also_accepted=("y",))
    adapt_example(model, Watched(), example, answer_known=False, config=FEW)
    assert len(seen) > 1 and not any(one.also_accepted for one in seen[1:]), "the first call measures the prompt"
    seen.clear()
    adapt_example(model, Watched(), example, answer_known=True, config=FEW)
    assert seen[-1].references == ("x", "y")


# -- many inputs -----------------------------------------------------------------------------


def test_an_actor_says_what_it_runs(folder):
    """Catches a trial whose actors run other code than the driver, unnoticed."""
    actor = AdaptingActor(resolve_model(str(folder)), "arc", None, TaskOptions(), FEW, None, "cpu", "float32", 1)
    assert actor.load() == installation()


def test_a_trial_is_judged_to_the_letter():
    """Catches a vote that is credited with the ceiling's answers, and questions won and lost changed over."""
    tried = [
        TriedExample(
            example_id=str(number),
            reference="x",
            base_answer=base,
            answer=answer,
            agreement=0.5,
            among_votes=among,
            length=None,
        )
        for number, (base, answer, among) in enumerate(
            [("x", "x", True), ("y", "x", True), ("x", "y", True), ("y", "y", False), ("z", "x", True)]
        )
    ]
    base, voted, ceiling = judge(tried).scores
    assert (base.accuracy, voted.accuracy, ceiling.accuracy) == (0.4, 0.6, 0.8)
    assert (voted.won, voted.lost, ceiling.won, ceiling.lost) == (2, 1, 2, 0)


def test_a_trial_on_own_rows_is_judged_by_their_rule():
    """Catches a vote for "Paris." that counts as wrong though every other command calls it right."""
    tried = TriedExample(
        example_id="q",
        reference="Paris",
        base_answer="Paris.",
        answer="Lutetia",
        agreement=0.5,
        among_votes=True,
        length=None,
        also_accepted=("Lutetia",),
    )
    base, voted, _ = judge([tried], "normalized").scores
    assert (base.accuracy, voted.accuracy) == (1.0, 1.0)
    assert judge([tried]).scores[0].accuracy == 0.0


@pytest.mark.ray
def test_actors_say_what_a_single_process_says(model, folder, choices, tmp_path):
    """Catches answers that depend on who gives them, or that come back in another order."""
    trial = try_adaptation(TrialRequest(model=str(folder), task="arc", data=choices, config=FEW))
    task = get_task("arc")
    for tried, example in zip(trial.tried, task.read(choices), strict=True):
        alone = adapt_example(model, task, example, answer_known=False, config=FEW)
        assert (tried.example_id, tried.answer, tried.base_answer) == (example.id, alone.answer, alone.base_answer)
        assert tried.length == (None if alone.program is None else len(alone.program))
    write(trial, tmp_path / "all.json")
    written = json.loads((tmp_path / "all.json").read_text())
    assert [one["answer"] for one in written["tried"]] == [one.answer for one in trial.tried]


def command(*arguments, status=0):
    result = CliRunner().invoke(main, ["adapt", *map(str, arguments)])
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def test_the_command_says_what_it_found(folder):
    """Catches a summary of other numbers than were found, and markup in a prompt."""
    said = command(
        "--model", folder, "--prompt", "[b]", "--option", "[/x]", "--option", "two", "--simulations", 8, "--votes", 4
    )
    assert "Base model:" in said and "of the votes of 4 programs" in said and "Pareto set of 9 programs" in said
    said = command("--model", folder, "--prompt", PROMPT, "--answer", "zzz", "--simulations", 8)
    assert "Wanted:          'zzz'" in said and "None of 9 programs gives that answer" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --prompt, or --task"),
        (["--prompt", "a", "--task", "arc"], "one of the two"),
        (["--task", "arc", "--answer", "a", "--chat"], "--answer, --chat go with --prompt"),
        (["--prompt", "a", "--limit", 0], "--limit goes with --task"),
        (["--prompt", "a", "--actors", 2], "--actors goes with --task"),
        (["--prompt", ""], "the prompt is empty"),
        (["--task", "gsm8k", "--data", "none.jsonl"], "programs cannot vote"),
        (["--task", "arithmetic", "--out", "."], "cannot be written"),
        (["--prompt", "a", "--simulations", -1], "--simulations must not be below 0"),
        (["--prompt", "a", "--votes", 0], "--votes must be at least 1"),
        (["--prompt", "a", "--budget", 3], "--budget must be at most 2.0"),
        (["--prompt", "a", "--device", "tpu"], "unknown device 'tpu'"),
        (["--prompt", "a", "--prior", "nowhere"], "nowhere"),
        (["--task", "none"], "unknown task 'none'"),
        (["--task", "arc"], "needs --data"),
        (["--task", "arithmetic", "--limit", 0], "--limit must be at least 1"),
    ],
)
def test_wrong_calls_are_refused(folder, arguments, message):
    """Catches a traceback, and a model that is loaded for nothing."""
    assert message in command("--model", folder, *arguments, status=2)
