"""Probes: the paper's numbers of parameters, padding that changes nothing, and what each scope may see."""

from __future__ import annotations

import pytest
import torch

from router.probes.network import Attention, Gate, ProbeConfig, ProbeNetwork
from router.probes.probe_requests import AGGREGATORS, SCOPES

LAYERS, SIZE, TOKENS, CLASSES = 5, 24, 7, 3
KINDS = [("pooling", "mean"), ("pooling", "max"), ("gate", "mean"), ("mha", "mean"), ("mha", "max")]


def probe(aggregator="gate", pooling="mean", scope="all", seed=0):
    made = ProbeNetwork(
        ProbeConfig(
            num_layers=LAYERS,
            hidden_size=SIZE,
            num_classes=CLASSES,
            aggregator=aggregator,
            pooling=pooling,
            scope=scope,
            downcast=4,
            num_heads=3,
        ),
        seed=seed,
    )
    if aggregator == "gate":
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if not name.startswith("head"):
                    parameter.normal_(generator=torch.Generator().manual_seed(seed))
    return made


def states_of(batch=4, tokens=TOKENS, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, LAYERS + 1, tokens, SIZE, generator=generator) * 3


def inside(model):
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("head"))


def test_parameters_are_as_many_as_in_the_paper():
    """Catches biases, a stage that is shared between layers, and a projection that is left out."""
    assert inside(probe("pooling")) == 0
    assert inside(probe("gate")) == (LAYERS + 2) * SIZE
    assert inside(probe("mha")) == (LAYERS + 2) * 4 * SIZE * (SIZE // 4)
    head = CLASSES * (SIZE + 1)
    assert sum(parameter.numel() for parameter in probe("mha", scope="last").parameters()) == head


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("aggregator", "pooling"), KINDS)
def test_padding_changes_nothing(aggregator, pooling, scope):
    """Catches padding that is pooled, attended to, or taken for the last token, on either side, whatever it holds."""
    model, states = probe(aggregator, pooling, scope), states_of()
    alone = model(states, torch.ones(4, TOKENS, dtype=torch.bool))
    rubbish = states_of(tokens=3, seed=1) * 1e6
    for left in (0, 1, 3):
        padded = torch.cat([rubbish[:, :, :left], states, rubbish[:, :, left:]], 2)
        valid = torch.zeros(4, TOKENS + 3, dtype=torch.bool)
        valid[:, left : left + TOKENS] = True
        torch.testing.assert_close(model(padded, valid), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_sees_what_it_says(aggregator, scope):
    """Catches an ablation that is none: a probe of the last layer that reads others, or one of the last token."""
    model, states = probe(aggregator, scope=scope), states_of()
    valid = torch.ones(4, TOKENS, dtype=torch.bool)
    before = model(states, valid)
    for sees, change in (
        (scope in ("all", "layers"), (slice(None), 1, -1)),
        (scope in ("all", "tokens"), (slice(None), -1, 2)),
        (scope == "all", (slice(None), 1, 2)),
        (True, (slice(None), -1, -1)),
    ):
        changed = states.clone()
        changed[change] = changed[change].flip(-1) * torch.linspace(-1, 2, SIZE)
        assert torch.equal(model(changed, valid), before) != sees


def test_a_gate_equals_a_loop():
    """Catches weights of another layer, and a softmax over padding."""
    states, gate = states_of(batch=2), Gate(LAYERS + 1, SIZE)
    with torch.no_grad():
        gate.weight.normal_(generator=torch.Generator().manual_seed(2))
    valid = torch.ones(2, TOKENS, dtype=torch.bool)
    valid[1, 4:] = False
    found = gate(states, valid)
    for row, number in enumerate((TOKENS, 4)):
        for layer in range(LAYERS + 1):
            some = states[row, layer, :number]
            share = torch.softmax(torch.tanh(some @ gate.weight[layer]), 0)
            torch.testing.assert_close(found[row, layer], (share[:, None] * some).sum(0))


def test_attention_equals_the_library_s_own_layer_by_layer():
    """Catches heads that are mixed up, and projections of another layer."""
    config = probe("mha").config
    attention = Attention(2, config, torch.Generator().manual_seed(0))
    states = torch.randn(3, 2, TOKENS, SIZE)
    valid = torch.ones(3, TOKENS, dtype=torch.bool)
    valid[0, 5:] = False
    found = attention(states, valid)
    inner = config.inner_size
    for group in range(2):
        query, key, value = (states[:, group] @ attention.inward[group, part] for part in range(3))
        stock = torch.nn.MultiheadAttention(inner, config.num_heads, bias=False, batch_first=True)
        with torch.no_grad():
            stock.in_proj_weight.copy_(torch.eye(inner).repeat(3, 1))
            stock.out_proj.weight.copy_(torch.eye(inner))
        attended, _ = stock(query, key, value, key_padding_mask=~valid)
        outward = (attended @ attention.outward[group]).masked_fill(~valid[:, :, None], 0.0)
        torch.testing.assert_close(found[:, group], outward.sum(1) / valid.sum(1)[:, None], rtol=1e-4, atol=1e-5)


def test_the_same_seed_is_the_same_probe():
    """Catches weights from a shared source of random numbers."""
    one, same, other = (probe("mha", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_classes", 1, "num_classes must be at least 2"),
        ("num_layers", 0, "num_layers must be at least 1"),
        ("aggregator", "sum", "unknown aggregator 'sum'"),
        ("pooling", "median", "unknown pooling 'median'"),
        ("scope", "first", "unknown scope 'first'"),
        ("downcast", 7, "downcast 7 does not divide"),
        ("num_heads", 5, "num_heads 5 does not divide"),
    ],
)
def test_a_setting_out_of_range_is_refused(field, value, message):
    """Catches a shape that fails only when the first text is read."""
    settings = {"num_layers": LAYERS, "hidden_size": SIZE, "num_classes": CLASSES, "aggregator": "mha", "downcast": 4}
    with pytest.raises(ValueError, match=message):
        ProbeConfig(**{**settings, field: value})
