"""From a run to a router to a table, by the commands that users type, with a tiny model and actors in this process."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from rich.console import Console
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from shard_rows import CONFIG, planted_row
from tiny import NUM_LAYERS, save_tiny_model, write_questions

from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.shards.run_folder import RunFolder
from pipeline.tasks import get_task
from router.evaluation.answering_actor import Answer
from router.evaluation.evaluate import read_requested, result_of_answers
from router.evaluation.evaluate_request import EvaluateRequest
from router.evaluation.evaluation_results import BASE, ROUTED, EvaluationResults
from router.evaluation.table import show_evaluation
from router.menu import expected_labels
from router.routed.checkpoint import Router
from router.training import held_out_judgement

pytestmark = [pytest.mark.commands, pytest.mark.usefixtures("local_actors")]

REPOSITORY = Path(__file__).resolve().parents[3]
TRAINED, ASKED = 40, 56


class Playground:
    """A tiny model, a search of some questions, and where everything goes."""

    def __init__(self, folder):
        self.folder = folder
        self.model = save_tiny_model(folder / "model")
        self.questions = write_questions(folder / "train.jsonl", TRAINED)
        self.more_questions = write_questions(folder / "test.jsonl", ASKED)
        self.run = folder / "run"
        self.features = folder / "features"
        command(
            "search",
            "--model",
            self.model,
            "--task",
            "arc",
            "--data",
            self.questions,
            "--out",
            self.run,
            "--simulations",
            40,
            "--keep",
            16,
            "--calibration",
            8,
            "--actors",
            2,
        )

    def train(self, name, *options, status=0):
        out = self.folder / name
        text = command(
            "train",
            "--data",
            self.run,
            "--out",
            out,
            "--features",
            self.features,
            "--epochs",
            3,
            "--held-out",
            0.25,
            "--labels",
            "consensus",
            *options,
            status=status,
        )
        return out, text


@pytest.fixture(scope="module")
def playground(tmp_path_factory, local_actors):
    return Playground(tmp_path_factory.mktemp("playground"))


@pytest.fixture(scope="module")
def router(playground):
    out, text = playground.train("router")
    assert "Kept epoch" in text  # another test may have read the features
    return out


def test_a_second_training_reads_nothing_and_gives_the_same_bits(playground, router):
    """Catches features that are computed again, and a training that does not repeat."""
    again, text = playground.train("again")
    assert "All features are in" in text and "Reading" not in text
    assert (again / "model.safetensors").read_bytes() == (router / "model.safetensors").read_bytes()
    other, _ = playground.train("other-seed", "--seed", 5)
    assert (other / "model.safetensors").read_bytes() != (router / "model.safetensors").read_bytes()


def test_labels_that_questions_share_are_judged_once(playground):
    """Catches verdicts that are made again, and a label that the menu's own verdicts contradict."""
    options = ("--labels", "expected", "--layer-price", 0.05, "--features", playground.folder / "expected-features")
    first, text = playground.train("expected", *options)
    assert "programs on 40 examples" in text and "candidate programs" in text
    made = json.loads((first / "config.json").read_text())["made"]
    assert made["labels"] == "expected" and made["questions"] + made["held_out_questions"] == TRAINED
    again, text = playground.train("expected-again", *options)
    assert "Running" not in text and "Reading" not in text
    assert (again / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()
    aside = playground.questions.with_suffix(".aside")
    playground.questions.rename(aside)
    _, text = playground.train("lost", *options, status=2)
    aside.rename(playground.questions)
    assert "cannot be read again" in text and "--labels consensus" in text


def test_a_planted_rule_is_learnt_through_the_model(playground):
    """Catches labels that are paired with another prompt's features, anywhere between a shard and a router."""
    rules = {"Add": (1, 1, 1, 0, 1, 1), "Multiply": (1, 0, 1, 1, 2, 1), "Compare": (1, 1, 1, 1, 1, 1)}
    rng = random.Random(0)
    groups = []
    for number in range(60):
        groups.append([])
        for place in range(8):
            kind = rng.choice(sorted(rules))
            prompt = f"{kind} {rng.randrange(100)} and {rng.randrange(100)}" + rng.choice(["", ", please", ", quickly"])
            groups[-1].append(planted_row(f"q{number}-{place}", LayerProgram.from_counts(rules[kind]), prompt=prompt))
    source = resolve_model(str(playground.model))
    folder = RunFolder(playground.folder / "planted")
    folder.open(replace(CONFIG, model=source), provenance={})
    folder.describe_model({"num_layers": NUM_LAYERS, "special_tokens_added": True})
    for number, group in enumerate(groups):
        folder.commit(number, group)
    folder.close()
    out = playground.folder / "planted-router"
    command(
        "train",
        "--data",
        folder.root,
        "--out",
        out,
        "--features",
        playground.folder / "planted-features",
        "--labels",
        "consensus",
        "--held-out",
        0.2,
    )
    made = json.loads((out / "config.json").read_text())["made"]
    assert made["held_out_macro_f1"] > 0.95


def test_nothing_to_learn_gives_the_best_that_is_known(playground, monkeypatch):
    """Catches a training that ends with nothing where the search found nothing: no router, and exit code 2."""
    monkeypatch.setattr(expected_labels, "frequent_programs", lambda rows, identity: [identity])
    options = ("--labels", "expected", "--features", playground.folder / "expected-features")
    out, text = playground.train("nothing", *options, "--layer-price", 0)
    assert "nothing to learn: every label is 'execute'; search with more --simulations" in text
    assert "The router runs the base model for all prompts, the best that is known." in text
    config = json.loads((out / "config.json").read_text())
    assert config["head"] == "static" and config["program"] == f"0-{NUM_LAYERS - 1}"
    answered = command("generate", "--router", out, "--prompt", "a b", "--max-new-tokens", 2)
    assert f"{NUM_LAYERS} of {NUM_LAYERS} layers ran" in answered and "--no-fallback" not in answered
    assert "below the shortest" not in command("generate", "--router", out, "--prompt", "a", "--budget", 0.1, status=2)
    judged = command(
        *("evaluate", "--router", out, "--task", "arc", "--data", playground.more_questions, "--simulations", 0),
        *("--actors", 1),
    )
    assert "routed" in judged


def test_a_router_that_is_worse_says_so_and_steps_aside(playground, monkeypatch):
    """Catches a router that loses to one program without a word, and one that answers prompts all the same."""
    best = LayerProgram.identity(NUM_LAYERS).skip(1)

    def planted(router, run, examples, static, service, show):
        def answers(program, *, correct):
            return [Answer(example_id=one.id, program=program, correct=correct) for one in examples]

        return {
            held_out_judgement.ROUTER: answers(LayerProgram.identity(NUM_LAYERS), correct=False),
            held_out_judgement.STATIC: answers(best, correct=True),
            held_out_judgement.BASE: answers(LayerProgram.identity(NUM_LAYERS), correct=False),
        }

    monkeypatch.setattr(held_out_judgement, "_answers", planted)
    monkeypatch.setattr(held_out_judgement, "best_static", lambda *others, **options: best)
    options = ("--labels", "expected", "--features", playground.folder / "expected-features")
    out, text = playground.train("worse", *options)
    assert f"best static program ({best}): 100.0 % right with {NUM_LAYERS - 1}.00 layers" in text
    assert f"The router is worth less than the program {best} for all prompts" in text and "train --menu" in text
    assert json.loads((out / "config.json").read_text())["fallback"] == str(best)
    answered = command("generate", "--router", out, "--prompt", "a b", "--max-new-tokens", 2)
    assert f"layers ran: {best}" in answered and "--no-fallback routes" in answered
    assert Router.load(out).fallback == best
    assert f"one program for all was worth more than this router: `{best}`" in (out / "README.md").read_text()
    routed = command("generate", "--router", out, "--prompt", "a b", "--max-new-tokens", 2, "--no-fallback")
    # A budget that the program does not keep leaves the choice to the router.
    within = command("generate", "--router", out, "--prompt", "a b", "--max-new-tokens", 2, "--budget", 0.5)
    assert "--no-fallback" not in routed + within


def test_what_a_training_leaves(router):
    """Catches metrics, a picture or a card that is missing."""
    records = [json.loads(line) for line in (router / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert {"train_loss", "loss", "macro_f1", "f1_skip", "layers"} <= records[0].keys()
    assert (router / "training.png").read_bytes().startswith(b"\x89PNG")
    assert list((router / "tensorboard").iterdir())
    made = json.loads((router / "config.json").read_text())["made"]
    assert made["questions"] + made["held_out_questions"] + sum(made["left_out"].values()) == TRAINED


def test_an_extraction_goes_on_where_it_stopped(playground, router):
    """Catches a restart that reads every prompt again, or leaves a hole where one is missing."""
    features = playground.folder / "kept"
    shutil.copytree(playground.features, features)
    [file] = features.rglob("*.safetensors")
    with safe_open(file, framework="np") as whole:
        kept, stored = json.loads(whole.metadata()["arrays"]), whole.get_tensor("arrays")
    keys, ends = kept["keys"], kept["ends"]
    cut = {"keys": keys[:10], "ends": ends[:10]}
    save_file({"arrays": stored[: ends[9]].copy()}, file, metadata={"arrays": json.dumps(cut)})
    out, text = playground.train("resumed", "--features", features)
    assert f"Reading {len(keys) - 10} prompts along their programs, 10 known already" in text
    resumed = load_file(out / "model.safetensors")
    for name, tensor in load_file(router / "model.safetensors").items():
        # Prompts that are read in other company may round differently in a last bit.
        np.testing.assert_allclose(resumed[name], tensor, atol=1e-2)


def test_the_table_has_every_contender(playground, router):
    """Catches questions that were trained on and are asked again, and contenders that are missing or not judged."""
    text = command(
        "evaluate",
        "--router",
        router,
        "--task",
        "arc",
        "--data",
        playground.more_questions,
        "--budget",
        0.9,
        "--simulations",
        20,
        "--curve",
        "0.8,0.5",
        "--actors",
        2,
    )
    assert "40 left out: trained on" in text
    found = json.loads((router / "evaluation.json").read_text())
    assert found["weights_sha256"] == hashlib.sha256((router / "model.safetensors").read_bytes()).hexdigest()
    assert found["questions"] == ASKED - TRAINED and found["left_out"] == {"trained on": TRAINED}
    by_name = {result["contender"]: result for result in found["results"]}
    assert list(by_name) == ["base", "routed", "best single program", "random programs", "search"]
    assert all(name in text for name in by_name) and "knows the right answers" in text
    assert by_name["base"]["layers"] == NUM_LAYERS and by_name["base"]["p_value"] == 1.0
    assert by_name["random programs"]["layers"] == by_name["routed"]["layers"] <= 0.9 * NUM_LAYERS
    assert by_name["best single program"]["programs"] == 1
    assert by_name["search"]["accuracy"] >= by_name["base"]["accuracy"]
    assert by_name["routed"]["latency"] > 0
    assert found["curve"]["0.5"]["layers"] <= 0.5 * NUM_LAYERS
    for result in by_name.values():
        right = [verdict for _, verdict in result["answers"].values()]
        assert len(right) == ASKED - TRAINED and sum(right) / len(right) == pytest.approx(result["accuracy"])
        assert result["interval"][0] <= result["accuracy"] <= result["interval"][1]
    assert (router / "evaluation.png").read_bytes().startswith(b"\x89PNG")


def test_a_probe_steers_depth_and_is_set_against_the_routers(playground, router):
    """Catches two routers that are judged on other questions, or the second one's budget, programs or states."""
    options = ("--head", "early-exit", "--labels", "shortest", "--short", 0.9, "--early", 2, "--lr", 0.01)
    out, text = playground.train("depth", *options)
    assert "behind the first 2 layers" in text and "Kept epoch" in text and "short: " in text
    config = json.loads((out / "config.json").read_text())
    assert config["head"] == "early-exit" and list(config["programs"])[:2] == ["short", "full"]
    results = playground.folder / "against"
    text = command(
        *("evaluate", "--router", out, "--against", router, "--task", "arc", "--data", playground.more_questions),
        *("--simulations", 0, "--curve", "0.9,0.2", "--out", results, "--actors", 1),
    )
    assert "budgets below" in text and "router against the routed one" in text
    found = json.loads((results / "evaluation.json").read_text())
    by_name = {result["contender"]: result for result in found["results"]}
    assert list(by_name)[:3] == ["base", "routed", "router"] and list(found["curve"]) == ["0.9"]
    assert {program for program, _ in by_name["routed"]["answers"].values()} <= set(config["programs"].values())
    assert list(by_name["routed"]["answers"]) == list(by_name["router"]["answers"])
    lost, won, _ = by_name["router"]["against"]
    rights = [[right for _, right in by_name[name]["answers"].values()] for name in ("routed", "router")]
    assert (lost, won) == (sum(a and not b for a, b in zip(*rights)), sum(b and not a for a, b in zip(*rights)))


def test_a_name_is_shown_as_it_is():
    """Catches a router whose folder's name is taken for markup: it vanishes from the table, or ends in a traceback."""
    answers = [Answer(example_id="q", program=LayerProgram.identity(3), correct=True)]
    base = result_of_answers(BASE, answers, answers)
    other = replace(base, method="[/b]", against=(0, 1, 1.0))
    results = [base, replace(base, method=ROUTED), other]
    console = Console(file=StringIO(), width=200)
    show_evaluation(EvaluationResults(results=results, curve={}, questions=1, left_out={}, num_layers=3), console)
    assert console.file.getvalue().count("[/b]") == 2  # type: ignore[attr-defined]


def test_the_signature_of_questions_that_cannot_be_read_is_not_said():
    """Catches a secret of a URL in the message of a store that cannot be reached."""

    def fail(request):
        raise OSError("no network")

    data = "https://host/q.jsonl?signature=not-for-logs"
    with pytest.raises(UserError, match=r"https://host/q.jsonl\?… cannot be read: no network"):
        read_requested(
            replace(get_task("jsonl"), read=fail), EvaluateRequest(router=Path("r"), task="jsonl", data=data)
        )


def test_the_single_program_can_be_handed_out(playground, router):
    """Catches an export of the base model, which is right on most questions of any run."""
    command(
        "evaluate",
        "--router",
        router,
        "--task",
        "arc",
        "--data",
        playground.more_questions,
        "--simulations",
        0,
        "--curve",
        "",
        "--budget",
        0.9,
        "--out",
        router,
    )
    out = playground.folder / "exported"
    text = command("export", "--router", router, "--best", "--out", out)
    assert "does not say" not in text
    layers = json.loads((out / "config.json").read_text())["num_hidden_layers"]
    assert f"{layers} of {NUM_LAYERS} layers" in text and layers <= 0.9 * NUM_LAYERS
    chosen = playground.folder / "for-a-prompt"
    assert "layers" in command("export", "--router", router, "--prompt", "Which?", "--budget", 0.5, "--out", chosen)
    assert json.loads((chosen / "config.json").read_text())["num_hidden_layers"] <= 3


def test_an_evaluation_is_told_where_the_trainings_examples_are_now(playground, tmp_path):
    """Catches a single program that is chosen by the rows alone although the examples were moved and not lost."""
    moved = tmp_path / "moved.jsonl"
    shutil.copy(playground.questions, moved)
    run = tmp_path / "run"
    shutil.copytree(playground.run, run)
    notes = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**notes, "data": "gone.jsonl", "data_path": None}))
    words = ("--features", playground.features, "--epochs", 1, "--held-out", 0.25, "--labels", "consensus")
    command("train", "--data", run, "--questions", moved, "--out", tmp_path / "router", *words)

    def evaluated(*options, status=0):
        return command(
            *("evaluate", "--router", tmp_path / "router", "--task", "arc", "--data", playground.more_questions),
            *("--simulations", 0, "--curve", "", "--limit", 48, *options),
            status=status,
        )

    text = evaluated()
    assert "cannot be read again" not in text and "choosing the single program" in text
    shutil.move(moved, tmp_path / "again.jsonl")
    text = evaluated().replace("\n", " ")
    assert "by the run's rows. Say with --questions where they are now." in text
    assert "choosing the single program" in evaluated("--questions", tmp_path / "again.jsonl")
    assert "--questions must be given once for each run of the training: 1 times" in evaluated(
        "--questions", "a.jsonl", "--questions", "b.jsonl", status=2
    )


def test_a_router_is_trained_again_only_if_asked(playground):
    """Catches a router that is lost, and an evaluation of its old weights that is taken for one of the new ones."""
    out, _ = playground.train("retrained")
    (out / "evaluation.json").write_text("{}")
    _, text = playground.train("retrained", "--seed", 5, status=2)
    assert "retrained holds a router already; give --overwrite to replace it" in text
    before = (out / "model.safetensors").read_bytes()
    playground.train("retrained", "--seed", 5, "--overwrite")
    assert (out / "model.safetensors").read_bytes() != before and not (out / "evaluation.json").exists()


def test_one_prompt_can_be_answered(router):
    """Catches a budget that the command line forgets."""
    text = command(
        "generate", "--router", router, "--prompt", "Which of these?", "--budget", 0.5, "--max-new-tokens", 3
    )
    assert "Which of these?" in text and any(f"{n} of {NUM_LAYERS} layers ran" in text for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("evaluate", "--router", "{router}", "--task", "arc", "--data", "{questions}"),
            "none of the 40 examples is left",
        ),
        (("evaluate", "--router", "{router}", "--task", "arc", "--data", "{more}", "--budget", "3"), "at most 2"),
        (("evaluate", "--router", "{router}", "--task", "arc", "--data", "{more}", "--curve", "x"), "--curve takes"),
        (("evaluate", "--router", "{router}", "--task", "arc"), "needs --data"),
        (("evaluate", "--router", "{folder}/none", "--task", "arc", "--data", "{more}"), "cannot be found"),
        (("train", "--data", "{folder}/none", "--out", "{folder}/x"), "no run folder"),
        (("train", "--data", "{run}", "--out", "{run}"), "give another one to --out"),
        (("train", "--data", "{run}", "--out", "{folder}/x", "--labels", "longest"), "choose one of"),
        (("train", "--data", "{run}", "--out", "{folder}/x", "--lr", "0"), "--lr must be above 0"),
        (("train", "--data", "{run}", "--out", "{folder}/x", "--held-out", "1"), "--held-out"),
        (
            ("train", "--data", "{run}", "--out", "{folder}/x", "--head", "probe", "--early", "6"),
            "error: --early must be below the 6 layers",
        ),
        (
            ("evaluate", "--router", "{router}", "--against", "{run}", "--task", "arc", "--data", "{more}"),
            "no router",
        ),
        (("generate", "--router", "{router}", "--prompt", "x", "--budget", "0"), "budget must be above 0"),
    ],
)
def test_a_wrong_call_gets_its_message(playground, router, arguments, message):
    """Catches a traceback, or a mistake that is found only after a model was loaded."""
    names = {
        "router": router,
        "folder": playground.folder,
        "questions": playground.questions,
        "more": playground.more_questions,
        "run": playground.run,
    }
    text = command(*(argument.format(**names) for argument in arguments), status=2)
    assert message in text
