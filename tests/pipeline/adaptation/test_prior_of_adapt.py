"""Adapting with a prior: where it cannot guide the search."""

from __future__ import annotations

import pytest
import reordering_space
from tiny import NUM_LAYERS, save_tiny_model

from pipeline.adaptation.adapt import AdaptConfig, adapt
from pipeline.engine import FrozenModel
from pipeline.errors import UserError
from pipeline.prior import Evaluation, fit_prior
from pipeline.program import LayerProgram
from pipeline.search.config import search_preset


def test_a_space_that_moves_layers_takes_no_prior(tmp_path):
    """Catches a prior that guides a search of programs which it cannot tell apart."""
    model = FrozenModel.load(str(save_tiny_model(tmp_path)), device="cpu")
    shorter = LayerProgram(range(NUM_LAYERS - 1), NUM_LAYERS)
    prior = fit_prior([Evaluation(example_id="e", program=shorter, correct=True, margin=1.0)], compare_margins=True)
    config = AdaptConfig(search=search_preset("default", reordering_space.NAME))
    with pytest.raises(UserError, match=f"'{reordering_space.NAME}' moves layers"):
        adapt(model, "1 + 1 =", "2", config=config, prior=prior)
