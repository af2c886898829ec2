"""Requests of searches: options that exclude each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import reordering_space
from click.testing import CliRunner

from pipeline.cli.main import main
from pipeline.errors import UserError
from pipeline.search.config import search_preset
from pipeline.workflows.search_request import SearchRequest


def request(space: str, **options) -> SearchRequest:
    return SearchRequest(
        model="m", task="arithmetic", out=Path("run"), search=search_preset("default", space), **options
    )


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prior": Path("other")}, "--prior"),
        ({"calibration": 8}, "--calibration"),
        ({"prior": Path("other"), "calibration": 0}, "--prior"),
    ],
)
def test_a_space_that_moves_layers_takes_no_prior(options, named):
    """Catches a prior that guides a search of programs which it cannot tell apart, or is left out without a word."""
    with pytest.raises(UserError, match=f"'{reordering_space.NAME}' moves layers.*; leave {named} out"):
        request(reordering_space.NAME, **options)
    if len(options) == 1:
        request("drllm", **options)  # elsewhere it is right


@pytest.mark.parametrize("options", [{}, {"calibration": 0}, {"calibration": None}])
def test_a_space_that_moves_layers_is_searched_without_a_prior(options):
    """Catches a space that is refused altogether, or by the default of an option."""
    assert request(reordering_space.NAME, **options).prior is None


@pytest.mark.parametrize(("option", "value"), [("--prior", "nowhere"), ("--calibration", "8")])
def test_the_command_names_the_option(tmp_path, option, value):
    """Catches a refusal that surfaces as a traceback, or only once the model is loaded."""
    arguments = ["--model", "m", "--task", "arithmetic", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["search", *arguments, "--action-space", reordering_space.NAME, option, value])
    assert result.exit_code == 2 and f"leave {option} out" in result.stderr and "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
