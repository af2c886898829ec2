"""The labels of a real run on the real SmolLM2, replayed by stock transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from replay import differing_rows

from pipeline import FrozenModel, read_paths

pytestmark = [pytest.mark.ray, pytest.mark.smollm2]


def test_every_label_is_what_stock_transformers_says(tmp_path):
    """Catches wrong labels, which no later stage could tell from right ones."""
    out = tmp_path / "run"
    options = "--model smollm2 --task arithmetic --limit 9 --simulations 12 --group-size 3"
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "search", *options.split(), "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=400,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = read_paths(out)
    assert rows.correct.any() and not rows.correct.all(), "the questions must test both verdicts"
    assert (rows.length != rows.num_layers).any(), "no program but the identity was kept"
    assert differing_rows(rows, FrozenModel.load("smollm2", device="cpu", dtype="float32")) == []
