"""The labels of a real run on the real SmolLM2, replayed by stock transformers."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from replay import differing_rows

from pipeline import FrozenModel, read_paths
from pipeline.cli.main import main

pytestmark = pytest.mark.smollm2


def test_every_label_is_what_stock_transformers_says(tmp_path, local_actors):
    """Catches wrong labels, which no later stage could tell from right ones."""
    out = tmp_path / "run"
    options = "--model smollm2 --task arithmetic --limit 9 --simulations 12 --group-size 3"
    result = CliRunner().invoke(main, ["search", *options.split(), "--out", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    rows = read_paths(out)
    assert rows.correct.any() and not rows.correct.all(), "the questions must test both verdicts"
    assert (rows.length != rows.num_layers).any(), "no program but the identity was kept"
    assert differing_rows(rows, FrozenModel.load("smollm2", device="cpu", dtype="float32")) == []
