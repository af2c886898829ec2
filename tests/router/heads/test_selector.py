"""A selector: chances from the first layers' states, a cautious choice, and a validation that luck does not pass."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.engine import FrozenModel, materialize
from pipeline.errors import UserError
from pipeline.model_source import resolve_model
from pipeline.program import LayerProgram
from router import RoutedCausalLM
from router.artifact.base_model import BaseModelRef
from router.heads.selector.chances import fit_chances
from router.heads.selector.choice import MenuChoice
from router.heads.selector.feedback import read_feedback
from router.heads.selector.fit import CAUTIONS, fit_at_best_exit, fit_selector, places_behind
from router.heads.selector.landmarks import Landmarks
from router.heads.selector.selector_head import (
    SELECTIONS,
    SelectorHead,
    SelectorNetwork,
    depths_of,
    inputs_of,
    num_inputs,
)
from router.heads.selector.validation import (
    BASE,
    FOLDS,
    ORACLE,
    RANDOM,
    SELECTOR,
    STATIC,
    STATIC_BY_KIND,
    _without_self,
    folds_of,
    gap_closed,
    validate,
)
from router.heads.static.static_head import StaticHead
from router.menu.ridge import principal_components
from router.routed.checkpoint import Router

IDENTITY, SHORT, LONG, EARLY, BLOCK = (
    LayerProgram.parse(text, NUM_LAYERS) for text in ("0-5", "0-3,5", "0-4,4-5", "0,2-5", "0-3,2-5")
)
TWICE = LayerProgram.parse("0-4,3-5,3", NUM_LAYERS)
MENU = [IDENTITY, SHORT, LONG]
#: A menu with a block that runs again, and a layer that runs thrice, for what is deployed.
DEPLOYED = [IDENTITY, SHORT, LONG, TWICE]


def choice(**changed):
    right = np.array([[1, 1, 0], [0, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=float)
    return replace(MenuChoice.of(MENU, right, caution=0.1, layer_price=0.0), **changed)


def test_the_static_program_runs_unless_another_is_clearly_better():
    """Catches a choice that follows every predicted difference, and one that follows none."""
    chances = np.array([[0.5, 0.5, 0.59], [0.5, 0.5, 0.61], [0.9, 0.5, 0.0]])
    assert choice().best_static == 1
    assert choice().choose(chances).tolist() == [1, 2, 0]
    assert choice(caution=CAUTIONS[-1]).choose(chances).tolist() == [1, 1, 1]


@pytest.mark.parametrize("number", [60, 300])
@pytest.mark.parametrize("copies", [1, 3])
def test_what_few_examples_tell_holds_for_others(number, copies):
    """Catches components that are rounding alone: they set every further example apart from all landmarks.

    There are fewer examples than inputs, and copies of some, so that not all components have a variance.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 500)) * 2

    def drawn(count):
        kinds = np.tile(np.arange(6), count // 6)
        return (centres[kinds] + rng.normal(size=(len(kinds), 500))).astype(np.float32), kinds

    inputs, kinds = drawn(number)
    found = principal_components(np.tile(inputs, (copies, 1)))
    others, of_others = drawn(60)
    scores = found.of(others)
    landmarks = Landmarks.among(found.scores, 512)
    assert landmarks.similarities(scores).max(1).min() > 0.01
    # The kinds of even number are right: no linear function of one direction.
    right = np.column_stack([np.full(number, 0.5), kinds % 2 == 0]).astype(float)
    beliefs = fit_chances(found, np.tile(right, (copies, 1)), num_landmarks=512).beliefs
    said = beliefs.chances(others)[:, 1] > 0.5
    assert (said == (of_others % 2 == 0)).mean() > 0.9


def test_a_limit_holds_for_the_static_program_too():
    """Catches a program over the budget, chosen or fallen back to."""
    rule = choice(static=np.array([0.1, 0.2, 0.9]))
    assert rule.best_static == 2 and replace(rule, limit=6).best_static == 1 and replace(rule, limit=5).best_static == 1
    chances = np.array([[0.9, 0.1, 1.0], [0.1, 0.9, 1.0]])
    assert replace(rule, limit=6).choose(chances).tolist() == [0, 1]
    assert replace(rule, limit=5).choose(chances).tolist() == [1, 1]


def test_a_price_makes_short_programs_worth_it():
    """Catches a price that is left out of the choice, or counted for one program alone."""
    chances = np.array([[0.5, 0.48, 0.6]])
    assert choice(caution=0.0, static=np.zeros(3)).choose(chances).tolist() == [2]
    assert choice(caution=0.0, static=np.zeros(3), layer_price=0.07).choose(chances).tolist() == [1]


def planted(number=1500, *, luck=False, seed=0):
    """Two kinds of examples, each with a program that suits it, or programs that are right by luck alone."""
    rng = np.random.default_rng(seed)
    kind = rng.random(number) < 0.5
    chance = {
        0: np.full(number, 0.4),
        1: np.full(number, 0.42) if luck else np.where(kind, 0.8, 0.2),
        2: np.full(number, 0.41) if luck else np.where(kind, 0.2, 0.75),
    }
    right = np.column_stack([rng.random(number) < chance[place] for place in range(3)]).astype(float)
    inputs = np.column_stack([kind + 0.3 * rng.normal(size=number), rng.normal(size=(number, 30))])
    return inputs.astype(np.float32), right, kind


def test_what_the_states_tell_is_learnt():
    """Catches weights that do not belong to the inputs, and predictions of training examples from themselves."""
    inputs, right, _ = planted()
    fitted = fit_selector(inputs, right, MENU, at=3, layer_price=0.0)
    more, _, of_more = planted(seed=1)
    chosen = fitted.choose(more)
    assert (chosen[of_more] == 1).mean() > 0.9 and (chosen[~of_more] == 2).mean() > 0.9
    predicted = fitted.beliefs.chances(more)
    assert abs(predicted[of_more, 1].mean() - 0.8) < 0.15 and abs(predicted[~of_more, 1].mean() - 0.2) < 0.15
    noise = fit_selector(inputs[:200, 1:], right[:200], MENU, at=3, layer_price=0.0)
    assert np.abs(noise.left_out - right[:200].mean(0)).max() < 0.25


def test_what_is_alike_is_learnt_where_no_line_tells_it():
    """Catches similarities that have no effect: each program suits two of four corners, across from each other."""
    rng = np.random.default_rng(0)

    def corners(number):
        inputs = rng.choice([-1.0, 1.0], size=(number, 2)) + 0.2 * rng.normal(size=(number, 2))
        alike = inputs[:, 0] * inputs[:, 1] > 0
        chances = np.column_stack([np.full(number, 0.5), np.where(alike, 0.9, 0.1), np.where(alike, 0.1, 0.9)])
        return inputs, (rng.random((number, 3)) < chances).astype(float), alike

    inputs, right, _ = corners(400)
    more, _, alike = corners(400)
    fitted = fit_selector(inputs, right, MENU, at=3, layer_price=0.0)
    chosen = fitted.choose(more)
    assert (chosen == np.where(alike, 1, 2)).mean() > 0.95
    few = fit_selector(inputs, right, MENU, at=3, layer_price=0.0, num_landmarks=20)
    assert len(few.beliefs.of_landmarks) == 20 and (few.choose(more) == np.where(alike, 1, 2)).mean() > 0.9
    # What is deployed says the same.
    asked = torch.from_numpy(more.astype(np.float32))
    network = SelectorNetwork.of(fitted.beliefs)
    np.testing.assert_allclose(network(asked).numpy(), fitted.beliefs.chances(more), atol=1e-3)
    np.testing.assert_allclose(network(asked[:7]).numpy(), network(asked)[:7].numpy(), atol=1e-6)


def test_an_exit_that_sees_nothing_is_not_taken():
    """Catches an exit that is fixed, whatever the states in front of it tell."""
    inputs, right, _ = planted()
    blind = np.random.default_rng(2).normal(size=inputs.shape)
    assert fit_at_best_exit({2: blind, 3: inputs}, right, MENU, layer_price=0.0).exit == 3
    assert fit_at_best_exit({2: inputs, 3: blind}, right, MENU, layer_price=0.0).exit == 2


def test_programs_in_front_of_the_exit_are_left_out():
    """Catches a program whose first layers were not those that ran: one that skips or repeats one of them."""
    programs = [IDENTITY, EARLY, SHORT, BLOCK, LONG]
    assert places_behind(programs, 1) == [0, 1, 2, 3, 4]
    assert places_behind(programs, 2) == [0, 2, 3, 4]
    assert places_behind(programs, 4) == [0, 2, 4]
    assert places_behind(programs, 5) == [0]
    inputs, right, _ = planted(300)
    more = np.column_stack([right, right[:, 1:]])
    fitted = fit_selector(inputs, more, programs, at=2, layer_price=0.0)
    assert set(fitted.choose(inputs)) <= {0, 2, 3, 4} and fitted.beliefs.weights.shape[1] == 4


def validated(inputs, right, kind, **options):
    folds = np.arange(len(right)) % FOLDS
    kinds = ["a" if one else "b" for one in kind]
    judged = np.ones(len(right), dtype=bool)
    found = validate({3: inputs}, right, MENU, folds, kinds=kinds, **{"judged": judged, "layer_price": 0.0, **options})
    return found, {one.method: one for one in found}


def test_a_validation_tells_a_selector_from_its_baselines():
    """Catches figures of other examples, and baselines that are too weak to compare with."""
    inputs, right, kind = planted()
    found, by_method = validated(inputs, right, kind)
    assert found[0].method == BASE and by_method[BASE].right == right[:, 0].mean()
    assert by_method[SELECTOR].right > by_method[STATIC].right + 0.15 and by_method[SELECTOR].p_static < 1e-6
    assert by_method[STATIC_BY_KIND].right == pytest.approx(by_method[SELECTOR].right, abs=0.05)
    assert by_method[ORACLE].right == pytest.approx(right.max(1).mean())
    assert by_method[RANDOM].right == pytest.approx(right.mean())
    assert 0.5 < gap_closed(found) < 1
    assert by_method[SELECTOR].layers == pytest.approx(6, abs=0.2)


def test_figures_are_of_the_judged_examples():
    """Catches figures on examples that the menu's programs were chosen on."""
    inputs, right, kind = planted(400)
    judged = np.arange(400) >= 300
    by_method = validated(inputs, right, kind, judged=judged)[1]
    assert by_method[BASE].right == right[300:, 0].mean() and by_method[ORACLE].right == right[300:].max(1).mean()
    assert by_method[RANDOM].p_value is None and by_method[RANDOM].low < right[300:].mean() < by_method[RANDOM].high


def test_an_example_is_not_its_own_neighbour():
    """Catches a twin's place that is taken for the example's own, so that its own outcome predicts it."""
    among = np.array([[0, 1, 2], [0, 1, 2], [3, 0, 1], [3, 2, 0]])
    assert _without_self(among).tolist() == [[1, 2], [0, 2], [3, 0], [2, 0]]


def test_luck_does_not_validate():
    """Catches a selector that looks better than the static program on outcomes that nothing predicts."""
    gains, small = [], 0
    for seed in range(4):
        inputs, right, kind = planted(500, luck=True, seed=seed)
        by_method = validated(inputs, right, kind)[1]
        gains.append(by_method[SELECTOR].right - by_method[STATIC].right)
        small += by_method[SELECTOR].p_static < 0.05
    assert abs(np.mean(gains)) < 0.02 and small <= 1


def test_a_prompt_is_in_one_fold():
    """Catches an example that is judged by what was fitted to its copy, and folds without examples."""
    prompts = [f"prompt {number % 60}" for number in range(120)]
    folds = folds_of(prompts)
    assert (folds[:60] == folds[60:]).all() and set(folds) == set(range(FOLDS))
    assert (folds_of(prompts, seed=1) != folds).any()
    with pytest.raises(UserError, match="6 examples are too few for 5 folds"):
        folds_of(prompts[:6])


# -- as a router ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def head():
    """A selector whose random weights send prompts to different programs."""
    at, hidden = 3, 32
    network = SelectorNetwork(num_inputs(at, hidden), len(DEPLOYED), components=6, landmarks=5, covariances=1)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        network.projection.normal_(generator=draw)
        network.weights.normal_(generator=draw)
        network.scale.fill_(0.05)
        network.landmarks.normal_(generator=draw)
        network.of_landmarks.normal_(generator=draw)
        network.covariance.copy_(torch.eye(7))
        network.noise.fill_(0.2)
    lengths = np.array(list(map(len, DEPLOYED)))
    rule = MenuChoice(lengths=lengths, static=np.array([0.4, 0.3, 0.2, 0.1]), caution=0.0)
    return SelectorHead(network.requires_grad_(False), tuple(DEPLOYED), at, hidden, rule)


@pytest.fixture(scope="module")
def routed(base, head):
    source = resolve_model(str(base))
    sample = torch.randn(40, len(DEPLOYED), generator=torch.Generator().manual_seed(1)) * 3
    router = Router(base=BaseModelRef(name=source.name, revision=source.revision), head=head, held_out=sample)
    model = FrozenModel.load(str(base), device="cpu")
    return RoutedCausalLM(model.hf_model, model.tokenizer, router)


PROMPTS = [f"Which of these is number {number * 37 % 101}?" + "!" * (number % 5) for number in range(24)]


def test_the_chosen_program_answers_as_a_stock_model_of_it(routed, head):
    """Catches a choice that changes the layers in front of it, padding that changes a choice, and a second pass."""
    answers = routed.generate(PROMPTS, max_new_tokens=6)
    programs = list(routed.last_programs)
    assert {TWICE, SHORT} < set(programs) <= set(DEPLOYED)
    stock = {program: materialize(routed.base, program) for program in set(programs)}
    for prompt, answer, program in zip(PROMPTS, answers, programs, strict=True):
        ids = torch.tensor([routed.tokenizer(prompt).input_ids])
        written = stock[program].generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6)
        assert routed.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True) == answer
    assert [routed.route([prompt])[0] for prompt in PROMPTS] == programs == routed.route(PROMPTS)


def test_it_reads_the_states_that_a_training_stores(routed, head):
    """Catches inputs in another order, of another depth, or of padding, in the training and in use."""
    frozen = FrozenModel(routed.base, routed.tokenizer)
    ids = [routed.tokenizer(prompt).input_ids for prompt in PROMPTS]
    first = LayerProgram(range(head.exit), NUM_LAYERS)
    states = frozen.hidden_states(ids, [first] * len(ids), inputs_of)
    inputs = torch.stack([of_prompt[depths_of(head.exit)].flatten() for of_prompt in states])
    chosen = head.choice.choose(head.network(inputs).double().numpy())
    assert [DEPLOYED[place] for place in chosen] == routed.route(PROMPTS)
    assert inputs.shape[1] == len(depths_of(head.exit)) * len(SELECTIONS) * head.hidden_size


def test_budgets_are_kept(routed):
    """Catches a program over the budget, and an average that is not kept on the sample that it is planned on."""
    assert max(map(len, routed.route(PROMPTS, budget=1.0))) <= 6
    assert {len(program) for program in routed.route(PROMPTS, budget=5 / 6)} == {5}
    with pytest.raises(UserError, match="the shortest program of this router has 5"):
        routed.route(PROMPTS, budget=0.5)
    rule = routed.steering(average=5.5 / 6).choice
    assert rule.lengths[rule.choose(routed.router.held_out.numpy())].mean() <= 5.5 + 1e-6


def test_it_is_saved_and_loaded(routed, tmp_path):
    """Catches a selector that comes back with another exit, another rule or other weights."""
    routed.save_pretrained(tmp_path / "router")
    again = Router.load(tmp_path / "router")
    assert again.head.settings() == routed.router.head.settings()
    weights = routed.router.head.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.head.network.state_dict().items())
    assert "A selector for" in (tmp_path / "router" / "README.md").read_text()
    config = json.loads((tmp_path / "router" / "config.json").read_text())
    for changed in (
        {"programs": ["0-3,5", "0-5", "0-4,4-5", "0-4"]},
        {"programs": ["0-5", "0,2-5", "0-4,4-5", "0-4"]},
        {"exit": 6},
        {"static": [0.1, 0.2]},
        {"caution": float("nan")},
        {"components": 4},
        {"landmarks": 4},
        {"covariances": 2},
    ):
        (tmp_path / "router" / "config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(UserError):
            Router.load(tmp_path / "router")


def test_it_explores_where_it_is_told_to(routed, tmp_path):
    """Catches exploration of what is known, one that the seed does not decide, and outcomes that are not recorded."""

    def choices(**options):
        lm = RoutedCausalLM(routed.base, routed.tokenizer, routed.router, **options)
        return lm, lm.route(PROMPTS)

    _, known = choices()
    lm, tried = choices(explore=1.0)
    assert tried != known and tried == choices(explore=1.0)[1] != choices(explore=1.0, explore_seed=1)[1]
    file = tmp_path / "outcomes.jsonl"
    lm.record_outcomes(file, PROMPTS, [True, 0.5] * 12)
    read = read_feedback(file, num_layers=NUM_LAYERS)
    assert [(one.prompt, one.program) for one in read] == list(zip(PROMPTS, tried, strict=True))
    assert [one.score for one in read[:2]] == [1.0, 0.5]
    for prompts, right, message in ((PROMPTS[:1], [True], "1 prompts and 1 outcomes"), (PROMPTS, [2] * 24, "a score")):
        with pytest.raises(UserError, match=message):
            lm.record_outcomes(file, prompts, right)
    with pytest.raises(UserError, match="explore must be from 0"):
        choices(explore=-1)
    static = replace(routed.router, head=StaticHead(SHORT, 32), held_out=torch.ones(1))
    with pytest.raises(UserError, match="'static' cannot explore"):
        RoutedCausalLM(routed.base, routed.tokenizer, static, explore=1.0)


def test_a_static_router_runs_its_program(routed, tmp_path):
    """Catches a program that is lost on the disk, and a budget that it does not keep."""
    router = replace(routed.router, head=StaticHead(SHORT, 32), held_out=torch.ones(1), fallback=LONG)
    router.save(tmp_path / "router")
    again = Router.load(tmp_path / "router")
    assert again.head.settings() == router.head.settings() and again.fallback == LONG
    lm = RoutedCausalLM(routed.base, routed.tokenizer, replace(again, fallback=None))
    assert set(lm.route(PROMPTS)) == {SHORT} and not lm.runs_fallback
    with pytest.raises(UserError, match="the shortest program of this router has 5"):
        lm.route(PROMPTS, budget=0.5)
    # The fallback runs where the budget allows it.
    lm = RoutedCausalLM(
        routed.base, routed.tokenizer, replace(again, head=routed.router.head, held_out=routed.router.held_out)
    )
    assert lm.runs_fallback and set(lm.route(PROMPTS)) == {LONG}
    assert set(lm.route(PROMPTS, budget=1.0)) <= {IDENTITY, SHORT}


def test_the_depths_end_at_the_exit():
    """Catches a state behind the exit, where programs differ, and one that is read twice."""
    for at in range(1, 40):
        depths = depths_of(at)
        assert depths == sorted(set(depths)) and depths[-1] == at and depths[0] >= 1 and len(depths) <= 4
    assert depths_of(12) == [3, 6, 9, 12]
