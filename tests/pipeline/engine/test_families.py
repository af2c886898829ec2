"""Every family of transformers is exact or refused by name: on loading, and before, from its configuration."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import transformers
from architectures import (
    ARCHITECTURE_PARAMETERS,
    NUM_LAYERS,
    PROGRAMS,
    WINDOW,
    build,
    build_family,
    rearranged,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from pipeline.engine import FrozenModel, stock_check
from pipeline.engine.small_model import _kept_layers, _small_config, check_family
from pipeline.engine.stock_check import NotFiniteError, edited_program
from pipeline.errors import UserError
from pipeline.program import LayerProgram

REFUSED = "outside the decoder-layer contract"
#: Families that pass a comparison of whole texts alone, and one that the engine cannot even decode.
DECEPTIVE = ("diffllama", "deepseek_v3", "deepseek_v2", "gemma4_text")


# -- on loading ----------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", DECEPTIVE)
def test_a_family_that_only_looks_alike_is_refused_by_name(model_type):
    """Catches a family that differs at the last position or with a cache alone, and a traceback instead of a name."""
    model = build_family(model_type)
    with pytest.raises(UserError, match=rf"{type(model).__name__} \(model type '{model_type}'\) is {REFUSED}"):
        FrozenModel(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_a_tested_family_loads_in_half_precision(name, dtype):
    """Catches a check whose tolerance is too small for the rounding of half precision."""
    FrozenModel(build(name).to(dtype))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_shallow_model_loads(depth):
    """Catches a check whose program needs more layers than the model has."""
    assert FrozenModel(build("llama", num_hidden_layers=depth)).num_layers == depth


@pytest.mark.parametrize("depth", range(1, 9))
def test_the_edited_program_skips_and_repeats(depth):
    """Catches a check that runs the identity program twice."""
    counts = edited_program(depth).counts
    assert counts is not None and max(counts) == 2
    assert depth == 1 or min(counts) == 0


@pytest.mark.parametrize(
    ("part", "reason"),
    [("Tails", "its last position alone"), ("NewestTokens", "token by token"), ("WholeTexts", "run layer by layer")],
)
def test_each_way_to_read_a_text_is_compared(monkeypatch, part, reason):
    """Catches a check that leaves out the last position, or decoding: each part of the engine is broken in turn."""
    from pipeline.engine import executor

    class Broken(getattr(executor, part)):  # type: ignore[misc]
        def attend(self, *arguments):
            return 1.5 * super().attend(*arguments)

    monkeypatch.setattr(executor, part, Broken)
    with pytest.raises(UserError, match=reason):
        FrozenModel(build("llama"))


def test_a_program_is_compared_with_its_stock_model(monkeypatch):
    """Catches a check of the identity program alone: the oracle of ``verify`` may be another model."""
    monkeypatch.setattr(stock_check, "materialize", lambda hf_model, program: hf_model)
    with pytest.raises(UserError, match="program 0,2,2-3 gives other logits than a stock model of its layers"):
        FrozenModel(build("llama"))


def test_an_end_token_does_not_end_the_check(monkeypatch):
    """Catches a model that answers the check's text by its end token, and is decoded no further."""
    from pipeline.engine import executor

    model, runs = build("llama"), itertools.count()
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))
    newest = executor.Executor.run_newest
    monkeypatch.setattr(executor.Executor, "run_newest", lambda *a, **k: (next(runs), newest(*a, **k))[1])
    FrozenModel(model)
    assert next(runs) == 2


# -- logits that are no numbers ------------------------------------------------------------


def overflowing(dtype):
    """A Llama whose states are larger than float16 holds."""
    model = build("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1e5)
    return model.to(dtype)


def test_a_model_that_overflows_is_refused_with_its_cure():
    """Catches a search whose labels are all wrong, without a word: Gemma 3 in float16."""
    with pytest.raises(NotFiniteError, match=r"not finite numbers in float16.*use --dtype bfloat16 or float32"):
        FrozenModel(overflowing(torch.float16))
    FrozenModel(overflowing(torch.bfloat16))


def nan_on(token):
    """A Llama that overflows where a text holds a token."""
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = torch.nan
    return model


def test_tokens_that_a_model_rules_out_are_equal():
    """Catches a model that is refused because infinity less infinity is no number, and a NaN that counts as equal."""
    ruled_out, nan = torch.tensor([[1.0, 4.0, -torch.inf]]), torch.tensor([[1.0, torch.nan, -torch.inf]])
    assert stock_check.difference(ruled_out, ruled_out) == 0
    assert stock_check.difference(torch.tensor([[2.0, 4.0, -torch.inf]]), ruled_out) == 0.25
    assert stock_check.difference(torch.tensor([[1.0, 4.0, 0.0]]), ruled_out) == torch.inf
    assert not stock_check.difference(nan, nan) <= 1


@pytest.mark.parametrize("call", ["logits", "generate"])
def test_a_base_model_that_overflows_on_a_text_is_an_error(call):
    """Catches an example that is labelled wrong because its logits are no numbers; other programs may be just wrong."""
    model = FrozenModel(nan_on(7))
    identity, other = LayerProgram.identity(NUM_LAYERS), LayerProgram((0, 1), NUM_LAYERS)
    run = getattr(model, call)
    run([[5, 6], [5, 7]], [identity, other])
    with pytest.raises(NotFiniteError, match="not finite numbers in float32: its weights are damaged"):
        run([[5, 6], [5, 7]], [other, identity])


# -- before loading ------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", [*DECEPTIVE, "gpt2", "cohere", "mamba"])
def test_a_family_is_refused_by_its_configuration(model_type):
    """Catches minutes of actors that load weights, to refuse each what the configuration says."""
    given = {"num_experts_per_tok": 6} if model_type == "deepseek_v2" else {}  # it has no default
    with pytest.raises(UserError, match=REFUSED):
        check_family(CONFIG_MAPPING[model_type](**given))


@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_a_tested_family_passes_by_its_configuration(name):
    """Catches a small model that is no model of its family any more, and a configuration that is changed."""
    config = build(name).config
    before = config.to_dict()
    check_family(config)
    check_family(type(config)())  # the sizes of the family's first release
    assert config.to_dict() == before


def test_windows_are_checked_before_loading():
    """Catches a family whose windows are another kind of mask: no text of a check on loading is as long as one."""

    class OwnMask(transformers.MistralForCausalLM):
        def forward(self, input_ids, **arguments):
            window, self.config.sliding_window = self.config.sliding_window, None
            try:
                return super().forward(input_ids, **arguments)
            finally:
                self.config.sliding_window = window

    config = transformers.MistralConfig(sliding_window=4096, num_hidden_layers=2)
    check_family(config)
    mapping = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(mapping._extra_content, transformers.MistralConfig, OwnMask)
        with pytest.raises(UserError, match="other logits"):
            check_family(config)


def test_experts_behind_dense_layers_are_among_the_small_models():
    """Catches a check of dense layers alone, where one number says from which layer on there are experts."""
    config = CONFIG_MAPPING["glm4_moe"](num_hidden_layers=20, first_k_dense_replace=9)
    assert _kept_layers(config) == [0, 1, 2, 3, 9]


@pytest.mark.parametrize(("token", "expected"), [(100_000, 0), (7, 7), ([100_000, 100_001], [0]), (None, None)])
def test_the_small_model_has_its_special_tokens(token, expected):
    """Catches a token without a row in the small embedding, and None where a strict configuration takes numbers."""
    config = build("llama").config
    config.eos_token_id = token
    assert _small_config(config).eos_token_id == expected


def test_random_numbers_are_left_alone():
    """Catches a seeded program whose numbers depend on whether a model was checked."""
    config = build("llama").config
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_family(config)
    assert torch.equal(torch.rand(3), expected)


# -- the sweep -----------------------------------------------------------------------------


#: The causal language models of transformers of which ``build_family`` makes a tiny one. The others name their sizes in
#: their own ways; the check on loading meets them too.
FAMILIES = Path(__file__).with_name("families.txt").read_text().split()
#: Of those, the ones that do not run with a window.
WITHOUT_WINDOW = ("iquestcoder",)


@pytest.mark.exhaustive
@pytest.mark.parametrize("model_type", FAMILIES)
@torch.inference_mode()
def test_every_family_is_exact_or_refused(model_type):
    """Catches a family that loads and whose labels are of another model: compared with an oracle of the test's own."""
    models = [build_family(model_type)]
    if model_type not in WITHOUT_WINDOW:
        models.append(build_family(model_type, sliding_window=WINDOW, use_sliding_window=True))
    for model in models:
        try:
            engine = FrozenModel(model)
        except UserError as error:
            assert REFUSED in str(error)
        else:
            check_family(model.config)
            for layers in PROGRAMS.values():
                assert_exact(engine, layers)


def assert_exact(engine, layers):
    """Compare logits and decoded tokens with those of a stock model whose layers were put in order by hand."""
    ids = [5, 9, 7, 30, 11, 12, 13, 14, 60, 31, 32, 33, 90, 91, 6]
    program, oracle = LayerProgram(layers, NUM_LAYERS), rearranged(engine.hf_model, layers)
    expected = oracle(torch.tensor([ids]), use_cache=False).logits[0]
    scale = float(expected.abs().max())
    whole, last = engine.logits([ids, ids], [program, program], starts=[0, len(ids) - 1])
    torch.testing.assert_close(whole, expected, atol=1e-4 * scale, rtol=0)
    torch.testing.assert_close(last, expected[-1:], atol=1e-4 * scale, rtol=0)
    [row] = engine.decode([ids], [program], max_new_tokens=5)
    for number, token in enumerate(row.tokens):
        logits = oracle(torch.tensor([ids + row.tokens[:number]]), use_cache=False).logits[0, -1]
        assert float(logits.max() - logits[token]) <= 2e-4 * scale
