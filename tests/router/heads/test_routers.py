"""The routers' networks and losses, against plain loops over what they batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from router.features.windows import pool_windows, window_weights
from router.heads.per_layer.losses import effective_number_weights, focal_loss
from router.heads.per_layer.routers import LayerRouters, RouterConfig

SIZE = RouterConfig(num_layers=5, hidden_size=12, num_windows=3, width=7)


def pooled_by_a_loop(state, num_windows):
    """The means of contiguous windows of one text's states ``[T, D]``."""
    count = len(state)
    means = []
    for window in range(num_windows):
        first = window * count // num_windows
        last = max(first + 1, (window + 1) * count // num_windows)
        means.append(state[first:last].mean(0))
    return torch.stack(means)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("num_windows", [1, 3, 8])
def test_windows_are_the_means_of_the_prompts_own_tokens(num_windows, left):
    """Catches padding in a mean, a token in no window or in two, and a short prompt's empty window."""
    generator = torch.Generator().manual_seed(0)
    lengths = np.array([1, 2, 7, 8, 9, 16, 23])
    longest = int(lengths.max())
    hidden = 100 * torch.randn(len(lengths), longest, 4, generator=generator)
    starts = longest - lengths if left else np.zeros_like(lengths)
    weights = window_weights(lengths, starts, longest, num_windows)
    pooled = pool_windows(hidden, torch.from_numpy(weights))
    for row, (length, start) in enumerate(zip(lengths.tolist(), starts.tolist())):
        expected = pooled_by_a_loop(hidden[row, start : start + length], num_windows)
        torch.testing.assert_close(pooled[row], expected)
    long = lengths >= num_windows
    assert ((weights[long] > 0).sum(1).sum(1) == lengths[long]).all(), "every token is in one window"


def test_all_routers_at_once_equal_separate_networks():
    """Catches a layer that is given another layer's weights, or windows that are averaged before the network."""
    routers = LayerRouters(SIZE, seed=3)
    for name, parameter in routers.named_parameters():
        if name.startswith("bias"):
            parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    pooled = torch.randn(4, 5, 3, 12, generator=torch.Generator().manual_seed(2))
    together = routers(pooled)
    for layer in range(5):
        network = nn.Sequential(nn.Linear(12, 7), nn.GELU(), nn.Linear(7, 3))
        with torch.no_grad():
            network[0].weight.copy_(routers.weight_in[layer].T)  # type: ignore[operator]
            network[0].bias.copy_(routers.bias_in[layer])  # type: ignore[operator]
            network[2].weight.copy_(routers.weight_out[layer].T)  # type: ignore[operator]
            network[2].bias.copy_(routers.bias_out[layer])  # type: ignore[operator]
        expected = network(pooled[:, layer]).mean(1)
        torch.testing.assert_close(together[:, layer], expected)
        torch.testing.assert_close(routers.unstacked().routers[layer](pooled[:, layer]), expected)


def test_weights_begin_as_xavier_has_them_and_by_the_seed():
    """Catches Xavier bounds taken over all layers at once, which makes every layer's weights too small."""
    routers = LayerRouters(RouterConfig(num_layers=30, hidden_size=64, width=128), seed=1)
    for weight, fan in ((routers.weight_in, 64 + 128), (routers.weight_out, 128 + 3)):
        bound = (6 / fan) ** 0.5
        assert weight.abs().max() <= bound
        assert (weight.abs().amax((1, 2)) > 0.9 * bound).all()
        assert not torch.equal(weight[0], weight[1])
    assert not routers.bias_in.any() and not routers.bias_out.any()
    same = LayerRouters(routers.config, seed=1)
    assert all(torch.equal(one, other) for one, other in zip(routers.parameters(), same.parameters()))


@pytest.mark.parametrize("field", ["num_layers", "hidden_size", "num_windows", "width"])
def test_a_size_of_nothing_is_refused(field):
    """Catches routers without windows, whose mean is no number."""
    with pytest.raises(ValueError, match=field):
        RouterConfig(**{**vars(SIZE), field: 0})


def test_the_focal_loss_at_gamma_zero_is_the_cross_entropy():
    """Catches weights that enter the sum but not what it is divided by."""
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 5, 3, generator=generator), torch.randint(3, (6, 5), generator=generator)
    weights = torch.tensor([2.0, 0.25, 3.0])
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), weight=weights)
    torch.testing.assert_close(focal_loss(logits, nn.functional.one_hot(targets, 3), weights, gamma=0.0), expected)


def test_the_focal_loss_counts_what_is_well_classified_little():
    """Catches a focus on p instead of 1 − p: by the formula, for one example."""
    logits, weights = torch.tensor([[2.0, 0.0, -1.0]]), torch.ones(3)
    p = logits.softmax(-1)[0]
    for target in range(3):
        expected = -((1 - p[target]) ** 2) * p[target].log()
        torch.testing.assert_close(focal_loss(logits, torch.eye(3)[[target]], weights), expected)
    # Shares of two classes are the mean of both losses.
    halves = focal_loss(logits, torch.tensor([[0.5, 0.5, 0.0]]), weights)
    single = [focal_loss(logits, torch.eye(3)[[target]], weights) for target in (0, 1)]
    torch.testing.assert_close(halves, (single[0] + single[1]) / 2)


def test_class_weights_follow_the_effective_number():
    """Catches weights from other data, and a class without examples that is divided by zero."""
    counts = torch.tensor([10, 100_000, 500])
    effective = [(1 - 0.999**count) / (1 - 0.999) for count in counts.tolist()]
    expected = torch.tensor([1 / number for number in effective])
    torch.testing.assert_close(effective_number_weights(counts), 3 * expected / expected.sum())
    torch.testing.assert_close(effective_number_weights(counts, beta=0.0), torch.ones(3))
    absent = effective_number_weights(torch.tensor([0, 7, 7]))
    torch.testing.assert_close(absent, torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="no examples"):
        effective_number_weights(torch.zeros(3))
    with pytest.raises(ValueError, match="beta"):
        effective_number_weights(counts, beta=1.0)
