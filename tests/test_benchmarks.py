"""The benchmarks: baselines that judge as we do, made questions as long as real ones, and an honest report."""

from __future__ import annotations

import json
import random
import re
from itertools import pairwise

import pytest
from click.testing import CliRunner
from rich.console import Console
from tiny import NUM_LAYERS, save_tiny_model, write_questions

from benchmarks import report
from benchmarks.__main__ import SECTIONS, main
from benchmarks.baseline_runners import ProgramMajor, Released, SinglePass
from benchmarks.harness import Findings
from benchmarks.jobs import RunBaseline, SearchGroups
from benchmarks.throughput import spread
from benchmarks.workloads import Sources, Subject, Workload, arc_examples, gsm8k_examples
from pipeline import FrozenModel, LayerProgram
from pipeline.model_source import ModelSource
from pipeline.search.actions import drllm
from pipeline.tasks import DataRequest, Example, get_task

NUM_QUESTIONS = 8
SUBJECT = Subject(source=ModelSource(name="tiny", location="nowhere", revision="none"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> FrozenModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("model"))
    return FrozenModel.load(str(folder), device="cpu", dtype="float32", cache_bytes=1 << 24)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, model):
    """A task of each kind of scoring with questions that the tiny model gets right under some programs, by name."""
    arc = get_task("arc").read(DataRequest(data=str(write_questions(tmp_path_factory.mktemp("q") / "q.jsonl", 8))))
    identity = LayerProgram.identity(NUM_LAYERS)
    texts = [f"{number} + {number * 7} =" for number in range(400)]
    written = model.generate([model.tokenizer(t).input_ids for t in texts], [identity] * len(texts), max_new_tokens=8)
    # A random model seldom ends a line within eight tokens; where it does, what it wrote is a right answer.
    lines = [model.tokenizer.decode(tokens, skip_special_tokens=True).lstrip(" ").partition("\n") for tokens in written]
    sums = [
        Example(id=text, task="arithmetic", question=text, answer=line.strip())
        for text, (line, ended, _) in zip(texts, lines)
        if ended and line.strip()
    ][:NUM_QUESTIONS]
    boxed = [Example(id=t, task="gsm8k", question=t, answer=str(n)) for n, t in enumerate(texts[:NUM_QUESTIONS])]
    return {
        "arc": (get_task("arc"), arc),
        "arithmetic": (get_task("arithmetic"), sums),
        "gsm8k": (get_task("gsm8k", max_new_tokens=12), boxed),
    }


def random_programs(count: int) -> list[LayerProgram]:
    """Programs a few edits away from the identity, some of them equal."""
    rng = random.Random(5)
    programs = []
    for _ in range(count):
        program = LayerProgram.identity(NUM_LAYERS)
        for _ in range(rng.randint(0, 3)):
            program = rng.choice(drllm(program, 2 * NUM_LAYERS)).program
        programs.append(program)
    return programs


@pytest.mark.parametrize("baseline", [SinglePass, ProgramMajor])
@pytest.mark.parametrize("name", ["arc", "arithmetic", pytest.param("gsm8k", marks=pytest.mark.exhaustive)])
def test_peers_judge_as_the_engine_does(model, tasks, name, baseline):
    """Catches padding that shifts positions, rows that swap places in a batch, and a text cut too late or too soon."""
    task, examples = tasks[name]
    questions = [task.prepare(example, model.tokenizer) for example in examples for _ in range(4)]
    programs = random_programs(len(questions))
    ours = task.scoring.score(model, questions, programs, need_response=False)
    theirs = baseline(model, task).score(questions, programs)
    assert [outcome.correct for outcome in theirs] == [outcome.correct for outcome in ours]
    assert [outcome.margin for outcome in theirs] == pytest.approx([outcome.margin for outcome in ours], abs=1e-3)
    assert [outcome.layer_executions for outcome in theirs] == [outcome.layer_executions for outcome in ours]
    if name != "gsm8k":
        assert len({outcome.correct for outcome in ours}) == 2, "both verdicts must occur"


@pytest.mark.parametrize("name", ["arithmetic", "gsm8k"])
def test_the_released_search_reads_its_texts_as_the_task_does(model, tasks, name):
    """Catches a text that is cut, decoded or compared in another way than the verdicts it is timed against."""
    task, examples = tasks[name]
    questions = [task.prepare(example, model.tokenizer) for example in examples for _ in range(3)]
    programs = random_programs(len(questions))
    ours = task.scoring.score(model, questions, programs, need_response=True)
    theirs = Released(model, task).score(questions, programs)
    assert [outcome.correct for outcome in theirs] == [outcome.correct for outcome in ours]


def test_the_released_search_writes_every_token(model, tasks):
    """Catches a baseline that is made faster than it was released, or slower, by its number of tokens."""
    task, examples = tasks["arc"]
    question = task.prepare(examples[0], model.tokenizer)
    identity = LayerProgram.identity(NUM_LAYERS)
    outcome = Released(model, task).score([question], [identity])[0]
    assert outcome.layer_executions == NUM_LAYERS * 10


def test_jobs_run_our_search_and_a_peer_on_the_same_pairs(model, tasks):
    """Catches verdicts that are compared across different questions or programs, and layers counted wrong."""
    _, examples = tasks["arc"]
    workload = Workload(name="arc", task="arc", examples=tuple(examples), simulations=6)
    search = SearchGroups(workload=workload, config=workload.config(SUBJECT), examples=workload.examples)
    found = search(model)()
    assert len(found.pairs) == len(examples) * (6 + 1)
    # A letter is two tokens of this model, a space and itself, so each of the four options has a pass.
    assert found.layers_asked == 4 * sum(len(program) for _, program, _ in found.pairs)
    assert 0 < found.layers_run < found.layers_asked
    pairs = [(example, program) for example, program, _ in found.pairs]
    outcomes = RunBaseline(workload=workload, baseline=SinglePass, pairs=pairs)(model)()
    assert [outcome.correct for outcome in outcomes] == [outcome.correct for _, _, outcome in found.pairs]


def test_a_sample_is_spread_over_all_there_is():
    """Catches a baseline that is given the first programs alone, which are the model's own depth."""
    chosen = spread(range(100), 5, random.Random(0))
    assert [later - earlier for earlier, later in pairwise(chosen)] == [20] * 4
    assert spread(range(3), 5, random.Random(0)) == [0, 1, 2]


def test_made_questions_are_as_long_as_real_ones():
    """Catches made questions whose length, and so whose cost, is another than that of the data sets."""
    letters = [len(example.question) for example in arc_examples(Sources(), 50)]
    problems = [len(example.question) for example in gsm8k_examples(Sources(), 50)]
    # SmolLM2 reads four characters or so a token, and its chat template adds 31 tokens.
    assert min(letters) > 440 and max(letters) < 500
    assert min(problems) < 260 and max(problems) > 450


def test_made_questions_come_from_the_seed_and_can_be_answered():
    """Catches questions that change between two runs, and a reference that is not what the text says."""
    assert gsm8k_examples(Sources(seed=1), 9) == gsm8k_examples(Sources(seed=1), 9)
    assert gsm8k_examples(Sources(seed=1), 9) != gsm8k_examples(Sources(seed=2), 9)
    for example in gsm8k_examples(Sources(), 30):
        have, *changes = map(int, re.findall(r"\d+", example.question))
        assert abs(int(example.answer) - have) <= sum(changes)
        assert (int(example.answer) - have - sum(changes)) % 2 == 0


def made_findings(**others: float) -> Findings:
    """Figures that all meet their targets, but for the given ones."""
    targets = [target for section in SECTIONS for target in section.targets]
    return Findings(figures={**{target.key: target.bound for target in targets}, **others}, details={})


def test_the_report_holds_every_promised_figure():
    """Catches a figure that is measured but not written, or written under another name."""
    targets = [target for section in SECTIONS for target in section.targets]
    content = json.loads(json.dumps(report.report(targets, made_findings(), settings={"quick": True})))
    promised = {
        "arc_letters_over_released",
        "arc_letters_over_single_pass",
        "arithmetic_over_released",
        "gsm8k64_over_released",
        "least_over_program_major",
        "two_actors_over_one",
        "layer_executions_ratio",
        "coordinator_ms_per_example",
        "time_to_released_quality",
        "time_to_random50_quality",
        "evaluations_to_random_50",
        "saved_at_50_over_ucb",
        "corrected_at_10_over_ucb",
    }
    assert promised <= content["figures"].keys() and promised <= content["targets"].keys()
    assert {"details", "machine", "versions", "commit", "settings", "date"} <= content.keys()
    assert content["versions"].keys() == {"python", "torch", "transformers", "ray", "drllm-pipeline"}
    assert all(target["met"] for target in content["targets"].values())


def test_a_section_that_is_measured_again_leaves_the_others(tmp_path):
    """Catches a run of one section that throws away the figures of hours, or claims them for today."""
    file = tmp_path / "results" / "latest.json"
    for section in (*SECTIONS, SECTIONS[0]):
        figures = {target.key: 2.0 for target in section.targets}
        found = Findings(figures=figures, details={section.name: section.summary})
        report.add(file, section.name, report.report(section.targets, found, settings={"of": section.name}))
    content = json.loads(file.read_text())
    assert content["figures"].keys() == {target.key for section in SECTIONS for target in section.targets}
    assert content["details"].keys() == content["sections"].keys() == {section.name for section in SECTIONS}
    assert all(kept["settings"] == {"of": name} for name, kept in content["sections"].items())


def test_the_table_says_which_target_is_missed():
    """Catches a bound that is read the wrong way round."""
    targets = [target for section in SECTIONS for target in section.targets]
    console = Console(width=200)
    with console.capture() as captured:
        console.print(report.table(targets, made_findings(two_actors_over_one=1.2, layer_executions_ratio=0.6).figures))
    missed = [line for line in captured.get().splitlines() if "missed" in line]
    assert len(missed) == 2
    assert "two_actors_over_one" in missed[0] + missed[1] and "layer_executions_ratio" in missed[0] + missed[1]


def test_a_wrong_file_gives_a_message(tmp_path):
    """Catches a traceback, and a model that is loaded before a wrong file is reported."""
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "Why?"}\n')
    result = CliRunner().invoke(main, ["--quick", "--arc", str(broken), "--out", str(tmp_path / "out.json")])
    assert result.exit_code == 1 and "Traceback" not in result.output
    assert "Error:" in result.output and "broken.jsonl" in result.output
    assert not (tmp_path / "out.json").exists()
