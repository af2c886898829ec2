"""A routed model under both names of the layers' cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURE_PARAMETERS, NUM_LAYERS, build
from renamed_cache import build_renamed
from silence import silent

from router.heads.per_layer.per_layer_head import PerLayerHead
from router.heads.per_layer.routers import LayerRouters, RouterConfig
from router.routed.layers import RoutedCache, steered


def generated(hf_model):
    """New tokens of a model routed by untrained routers, which repeat layers and skip some."""
    size = RouterConfig(num_layers=NUM_LAYERS, hidden_size=hf_model.config.hidden_size, num_windows=3, width=8)
    routers = LayerRouters(size, seed=1).requires_grad_(False)
    routers.weight_out.data *= 6
    cache = RoutedCache(PerLayerHead(routers).steering(np.full((2, NUM_LAYERS, 3), -1.1), limit=None))
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13], [0, 0, 0, 20, 21, 22, 23, 24, 25]])
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    return steered(hf_model).generate(ids, attention_mask=(ids > 0).long(), past_key_values=cache, **options)


@pytest.mark.parametrize("name", ARCHITECTURE_PARAMETERS)
def test_nothing_warns_of_a_name_that_goes_away(name):
    """Catches an argument that transformers deprecates: a line in every process today, a TypeError tomorrow."""
    with silent():
        generated(build(name))


def test_layers_that_only_know_the_new_name_run():
    """Catches a ``past_key_values`` that is popped from, or passed to, layers of transformers 5.40."""
    assert torch.equal(generated(build_renamed()), generated(build("llama")))
