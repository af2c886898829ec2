"""The early exit: its labels, its decisions, and its files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.cli.main import main
from pipeline.engine import FrozenModel
from pipeline.engine.loading import load_transformers
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from pipeline.tasks import Example
from router import Probe, RoutedCausalLM
from router.artifact.base_model import BaseModelRef
from router.features.hidden_states import pool_states, stack_states
from router.heads.early_exit.early_exit_head import EarlyExitHead
from router.heads.early_exit.early_exit_request import EarlyExitRequest
from router.heads.early_exit.exit_labels import exit_labels
from router.heads.early_exit.train import fit_early_exit
from router.labels.labelled import Labelled
from router.menu.candidates import SearchedRun
from router.probes.network import ProbeConfig, ProbeNetwork
from router.probes.probe_requests import ProbeFitConfig, ProbeKind
from router.routed.checkpoint import Router

EARLY = 2
SHORT, WHOLE, LONG = (1, 1, 0, 1, 0, 1), (1,) * NUM_LAYERS, (1, 1, 1, 2, 1, 1)
PROGRAMS = {
    name: LayerProgram.from_counts(counts) for name, counts in (("short", SHORT), ("full", WHOLE), ("correction", LONG))
}


# -- labels --------------------------------------------------------------------------------


class World:
    """Questions of which the short program is right on the easy ones, and the correction on the hard ones."""

    def __init__(self, questions=400, noise=0.1):
        rng = np.random.default_rng(1)
        self.kinds = rng.integers(0, 3, questions)
        self.examples = [Example(id=f"q{number}", task="made", question="", answer="") for number in range(questions)]
        sure = {SHORT: [1, 0, 0], WHOLE: [1, 1, 0], LONG: [0, 0, 1]}
        self.right = {
            counts: rng.random(questions) < np.clip(np.array(chances)[self.kinds], noise, 1 - noise)
            for counts, chances in sure.items()
        }
        # The search came by the same programs with another first layer: only their rest may be taken from them.
        found = {SHORT: (2, 0, 0, 1, 0, 1), LONG: (1, 0, 1, 2, 1, 1), WHOLE: WHOLE}
        self.rows = pd.DataFrame(
            {
                "example_id": example.id,
                "prompt": f"prompt of {example.id}",
                "num_layers": NUM_LAYERS,
                "counts": found[counts],
                "correct": bool(right[number]),
                "rank": int(right[number]),
            }
            for number, example in enumerate(self.examples)
            for counts, right in self.right.items()
        )

    def verdicts(self, run, examples, programs):
        numbers = [int(example.id[1:]) for example in examples]
        never = np.zeros(len(self.examples), dtype=bool)
        return np.array([[self.right.get(p.counts, never)[number] for p in programs] for number in numbers])

    @property
    def searched(self):
        return SearchedRun(run=Path("run"), rows=self.rows, examples=self.examples, task="made")

    def summaries(self, rows, *, num_windows):
        kinds = self.kinds[[int(row.example_id[1:]) for row in rows]]
        return np.column_stack([np.eye(3)[kinds], np.random.default_rng(3).normal(size=(len(rows), 4))])

    def labels(self, **changed):
        options = {"early": EARLY, "shares": (0.9,), "choice": "expected", "num_windows": 8, **changed}
        return exit_labels([self.searched], self, **options)


def test_every_class_has_a_program_that_begins_as_the_base_model():
    """Catches programs whose first layers are not those that the probe has seen run."""
    found = World().labels()
    assert list(found.programs) == ["short", "full", "correction"]
    assert {name: program.counts for name, program in found.programs.items()} == {
        "short": SHORT,
        "full": WHOLE,
        "correction": LONG,
    }


def test_expected_labels_say_what_a_kind_of_question_needs():
    """Catches a label by luck, classes in another order than their programs, and a price of the wrong sign."""
    world = World()
    found = world.labels(layer_price=0.02)
    wanted = [(SHORT, WHOLE, LONG)[kind] for kind in world.kinds]
    assert np.mean([row.counts == one for row, one in zip(found.rows, wanted, strict=True)]) > 0.97
    assert not found.left_out and found.right > found.base_right + 0.15
    assert found.layers == pytest.approx(np.mean([sum(row.counts) for row in found.rows]))


def test_shortest_labels_are_the_questions_own_verdicts():
    """Catches a correction where the base model is right, and a label where no program is right."""
    world = World()
    found = world.labels(choice="shortest")
    labels = {row.example_id: row.counts for row in found.rows}
    for number, example in enumerate(world.examples):
        right = [counts for counts in (SHORT, WHOLE, LONG) if world.right[counts][number]]
        assert labels.get(example.id) == (right[0] if right else None)
    assert found.left_out == {"no class is right": len(world.examples) - len(labels)}
    assert found.right == 1.0


def test_classes_that_nothing_was_found_for():
    """Catches a class without a program, and a short one that is longer than it may be."""
    world = World()
    with pytest.raises(UserError, match="no program of at most 3 layers beside the first 2"):
        world.labels(shares=(0.5,))
    world.right[WHOLE][:] = True
    assert list(world.labels().programs) == ["short", "full"], "nothing is to be corrected"


# -- learning ------------------------------------------------------------------------------


def test_a_planted_rule_is_learnt():
    """Catches labels that are paired with another prompt's states, or with another class's program."""
    rng = np.random.default_rng(0)
    rows, states = [], {}
    for number in range(300):
        kind = number % 3
        rows.append(
            Labelled(example_id=str(number), task="made", prompt=f"p{number}", counts=(SHORT, WHOLE, LONG)[kind])
        )
        of_prompt = rng.normal(size=(1 + number % 5, EARLY + 1, 8))
        of_prompt[:, 1, kind] += 4
        states[f"p{number}"] = of_prompt.astype(np.float16)
    store = SimpleNamespace(
        early=EARLY, lengths=lambda texts: [len(states[text]) for text in texts], read=states.__getitem__
    )
    request = EarlyExitRequest(fit=ProbeFitConfig(epochs=12, learning_rate=0.03))
    labels = SimpleNamespace(
        classes=SimpleNamespace(programs=PROGRAMS, worth=np.eye(3)), train=rows[:240], held_out=rows[240:], early=EARLY
    )
    trained = fit_early_exit(labels, store, request, lambda record: None)
    assert list(trained.f1) == list(PROGRAMS) and min(trained.f1.values()) > 0.95
    assert trained.sample.shape == (60, *trained.head.sample_shape)
    said = np.array(list(trained.head.programs.values()))[trained.sample.argmax(1)]  # type: ignore[attr-defined]
    assert np.mean([program.counts == row.counts for program, row in zip(said, rows[240:])]) > 0.95


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"early": 0}, "early must be at least 1"),
        ({"short": (1.0,)}, "between 0 and 1"),
        ({"short": ()}, "between 0 and 1"),
        ({"short": (0.9, 0.9)}, "twice"),
        ({"early": 6}, "below the 6 layers"),
        ({"early": 5, "short": (0.5,)}, "no room"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(changed, message):
    """Catches an exit behind the last layer, and a short class that no program fits."""
    with pytest.raises(ValueError, match=message):
        EarlyExitRequest(**changed).exit_of(NUM_LAYERS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--head", "tail"], "choose one of: per-layer, early-exit"),
        (["--early", 2], "--early goes with --head early-exit"),
        (["--head", "early-exit", "--gamma", 2], "--gamma goes with --head per-layer"),
        (["--head", "early-exit", "--labels", "consensus"], "--labels consensus does not go with --head early-exit"),
        (["--labels", "consensus", "--layer-price", 0.1], "--layer-price has no effect on --labels consensus"),
        (["--consensus-price", 0.1], "--consensus-price has no effect on --labels expected"),
        (["--layer-price", "nan"], "--layer-price must not be below 0"),
        (["--labels", "consensus", "--consensus-price", -1], "--consensus-price must not be below 0"),
        (["--head", "early-exit", "--short", 1], "between 0 and 1"),
        (["--head", "early-exit", "--short", "a"], "--short takes numbers"),
        (["--head", "early-exit", "--early", 0], "--early must be at least 1"),
        (["--head", "early-exit", "--aggregator", "sum"], "unknown aggregator"),
        (["--head", "early-exit", "--lr", 0], "--lr must be above 0"),
        (["--head", "probe"], "no run folder"),
    ],
)
def test_a_wrong_option_gets_its_message(tmp_path, options, message):
    """Catches an option that is silently another head's, and defaults that count as given."""
    arguments = ["train", "--data", tmp_path / "none", "--out", tmp_path / "out", *options]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 2 and message in result.output


# -- deciding ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


def head_of(kind=None, worth=None):
    shape = ProbeConfig(**vars(kind or ProbeKind()), num_layers=EARLY, hidden_size=32, num_classes=3)
    network = ProbeNetwork(shape, seed=3)
    with torch.no_grad():
        network.head.weight.mul_(40)
    return EarlyExitHead(
        network.eval().requires_grad_(False), PROGRAMS, np.eye(3) if worth is None else np.array(worth)
    )


def router_of(base, head):
    source = resolve_model(str(base))
    generator = torch.Generator().manual_seed(0)
    return Router(
        base=BaseModelRef(name=source.name, revision=source.revision),
        head=head,
        held_out=(2 * torch.randn(50, *head.sample_shape, generator=generator)).log_softmax(-1),
    )


PROMPTS = [f"{'What is ' * (number % 4)}{number * 37 % 101}?" for number in range(16)]


@pytest.mark.parametrize(
    ("aggregator", "scope"),
    [
        pytest.param(aggregator, scope, marks=() if scope in ("all", kept) else pytest.mark.exhaustive)
        for aggregator, kept in (("pooling", "tokens"), ("gate", "layers"), ("mha", "last"))
        for scope in ("all", "tokens", "layers", "last")
    ],
)
@torch.inference_mode()
def test_what_decides_is_what_training_saw(base, aggregator, scope):
    """Catches padding that is read, another layer's states, and a neighbour that changes a decision."""
    head = head_of(ProbeKind(aggregator=aggregator, scope=scope, downcast=4))
    hf_model, tokenizer = load_transformers(str(base), device="cpu", dtype="float32", revision=None)
    lm = RoutedCausalLM(hf_model, tokenizer, router_of(base, head))
    together_chosen = lm.route(PROMPTS)
    assert len(set(together_chosen)) > 1
    assert [lm.route([prompt])[0] for prompt in PROMPTS] == together_chosen
    model, selection = FrozenModel(hf_model, tokenizer), head.network.config.state_selection
    tokens = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    first = LayerProgram(range(EARLY), NUM_LAYERS)
    for prompt_tokens, program in zip(tokens, together_chosen):
        [states] = model.hidden_states([prompt_tokens], [first], lambda state: pool_states(state, selection))
        read = stack_states(states, selection).transpose(0, 1)[None].float()
        logits = head.network(read, torch.ones(1, read.shape[2], dtype=torch.bool))
        assert list(PROGRAMS.values())[int(logits.argmax())] == program


@torch.inference_mode()
def test_answers_are_those_of_the_chosen_programs(base):
    """Catches a decision that comes after its layer has run."""
    lm = RoutedCausalLM.from_pretrained(_saved(base), device="cpu", dtype="float32")
    texts = lm.generate(PROMPTS, max_new_tokens=4)
    chosen = lm.last_programs
    assert len(set(chosen)) > 1
    model = FrozenModel(lm.base, lm.tokenizer)
    written = model.generate([lm.tokenizer(prompt).input_ids for prompt in PROMPTS], chosen, max_new_tokens=4)
    assert [lm.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in written] == texts


_FOLDERS = {}


def _saved(base):
    if base not in _FOLDERS:
        _FOLDERS[base] = base.parent / "depth-router"
        router_of(base, head_of()).save(_FOLDERS[base])
    return _FOLDERS[base]


def test_budgets_and_averages_are_kept(base):
    """Catches a program above the budget, an average that is missed, and prompts that run more than they want to."""
    router = router_of(base, head_of())
    head, sample = router.head, router.held_out.numpy()
    lengths = np.array([len(program) for program in PROGRAMS.values()])
    assert head.least_layers == 4
    bounded = head.steering(sample, limit=6)
    assert lengths[bounded.choose(sample)].max() == 6
    for average in (0.7, 0.8, 0.9, 1.0, 1.2):
        priced = head.steering(sample, average=average)
        mean = lengths[priced.choose(sample)].mean()
        assert mean <= average * NUM_LAYERS + 1e-9
        assert (np.diff(priced.cost[np.argsort(lengths)]) >= 0).all()
    free = lengths[sample.argmax(1)].mean()
    assert mean == free
    lm = RoutedCausalLM.from_pretrained(_saved(base), budget=0.7)
    assert all(program == PROGRAMS["short"] for program in lm.route(PROMPTS))
    with pytest.raises(UserError, match="shortest program of this router has 4 of 6"):
        lm.route(PROMPTS, budget=0.5)
    with pytest.raises(UserError, match="at least 4 of the 6 layers"):
        lm.route(PROMPTS, average=0.5)


def test_a_mistake_weighs_what_it_costs(base):
    """Catches the likeliest class's program where it is wrong too often, and a worth that is read backwards."""
    # A short program is a little better where it will do, and right on nothing else.
    head = head_of(worth=[[1.03, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    decide = head.steering(np.zeros((1, 3))).choose
    assert decide(np.log([[0.98, 0.01, 0.01]])) == [0]
    assert decide(np.log([[0.90, 0.09, 0.01]])) != [0]
    assert decide(np.log([[0.01, 0.01, 0.98]])) == [2]


@torch.inference_mode()
def test_a_router_of_an_old_name_still_loads(base, tmp_path):
    """Catches routers that an earlier release saved under ``probe``, and that this one no longer finds."""
    router = router_of(base, head_of())
    router.save(tmp_path / "router")
    file = tmp_path / "router" / "config.json"
    config = json.loads(file.read_text())
    assert config["head"] == "early-exit"
    file.write_text(json.dumps({**config, "head": "probe"}))
    loaded = Router.load(tmp_path / "router")
    assert loaded.head.settings() == router.head.settings() and loaded.head.name == "early-exit"
    loaded.save(tmp_path / "router")
    assert json.loads(file.read_text())["head"] == "early-exit"


# -- on disk -------------------------------------------------------------------------------


def test_what_is_saved_comes_back(base):
    """Catches programs or a kind of probe that a round trip changes, and a card of the other head."""
    folder = _saved(base)
    loaded, made = Router.load(folder), head_of()
    assert loaded.head.settings() == made.settings() and loaded.head.programs == PROGRAMS  # type: ignore[attr-defined]
    for name, tensor in made.network.state_dict().items():
        assert torch.equal(loaded.head.network.state_dict()[name], tensor)
    card = (folder / "README.md").read_text()
    assert "first 2 layers" in card and "0-3,3-5" in card
    with pytest.raises(UserError, match="holds a router, and not a probe"):
        Probe.from_pretrained(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"programs": {"short": "0,2-5", "full": "0-5", "correction": "0-3,3-5"}},
        {"programs": {"short": "0-5"}},
        {"programs": {"short": "zero", "full": "0-5", "correction": "0-3,3-5"}},
        {"programs": 3},
        {"early": 0},
        {"probe": {"aggregator": "sum"}},
        {"head": "tail"},
        {"worth": [[1, 2], [3, 4]]},
        {"worth": [[1, 2, "x"]] * 3},
    ],
)
def test_a_damaged_configuration_gets_its_message(base, tmp_path, change):
    """Catches a router that runs a program which it was not trained for, or that ends in a traceback."""
    router_of(base, head_of()).save(tmp_path / "router")
    file = tmp_path / "router" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match="is no router's configuration"):
        Router.load(tmp_path / "router")
