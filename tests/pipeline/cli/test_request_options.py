"""Options derived from requests: nothing that a user could type before is lost, and a value is checked once."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner
from option_table import table

from pipeline.cli.request_options import RequestCommand, docstrings, filled, option_names, request_options
from pipeline.errors import UserError
from pipeline.errors.fields import check_fields, option
from pipeline.storage import AnyPath

TABLE = Path(__file__).with_name("options_of_commands.json")


@dataclass(frozen=True, kw_only=True)
class Motor:
    """A request within another one."""

    power: float = field(default=1.5, metadata=option(above=0, advanced=True))
    """Power in ``kW``."""
    fuel: Literal["petrol", "wind"] = "wind"
    """What drives it."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Trip:
    """A request of every type that an option can have."""

    goal: str
    """Where it goes,
    in one word."""
    num_boats: int | None = field(default=None, metadata=option("--boats", at_least=1, unset="all"))
    """Boats."""
    load: int | str = 4
    """A number or a word."""
    fast: bool = False
    """Whether there is a hurry."""
    stops: tuple[str, ...] = ("here", "there")
    """Stop."""
    shares: tuple[float, ...] = field(default=(0.5, 0.25), metadata=option(above=0, below=1))
    """Shares."""
    map: AnyPath | None = None
    """File or URL."""
    motor: Motor = field(default_factory=lambda: Motor(fuel="petrol"))
    """The motor."""

    def __post_init__(self) -> None:
        check_fields(self)


def trip(*arguments: str) -> Trip | str:
    """The request that a command line makes, or the last line of what it says instead."""
    made: list[Trip] = []

    @click.command(cls=RequestCommand)
    @request_options(Trip)
    def command(**options: object) -> None:
        made.append(filled(Trip, options))

    result = CliRunner().invoke(command, arguments)
    if isinstance(result.exception, UserError):
        return str(result.exception)
    return made[0] if made else result.output


def test_without_options_a_request_has_its_own_defaults():
    """Catches a default that the command line says otherwise than the request."""
    assert trip("--goal", "sea") == Trip(goal="sea")
    assert "Missing option '--goal'" in trip()  # type: ignore[operator]


def test_options_have_the_types_of_their_fields():
    """Catches a field that reaches its request as text, or in the wrong request."""
    made = trip(
        *("--goal", "sea", "--boats", "2", "--load", "full", "--fast", "--stops", "a", "--stops", "b"),
        *("--shares", "0.1, 0.2", "--map", "memory://maps/a", "--power", "3"),
    )
    assert isinstance(made, Trip)
    assert (made.num_boats, made.load, made.fast, made.stops, made.shares) == (2, "full", True, ("a", "b"), (0.1, 0.2))
    assert str(made.map) == "memory://maps/a"
    assert made.motor == Motor(power=3, fuel="petrol")
    assert trip("--goal", "sea", "--load", "7").load == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--boats", "0"], "--boats must be at least 1, got 0"),
        (["--power", "0"], "--power must be above 0, got 0"),
        (["--power", "nan"], "--power must be above 0, got nan"),
        (["--power", "inf"], "--power must be above 0, got inf"),
        (["--shares", "0.5,1"], "--shares must be between 0 and 1, got 1"),
        (["--shares", "0.5,x"], "--shares takes numbers with commas between them, got '0.5,x'"),
        (["--fuel", "coal"], "unknown fuel 'coal'; choose one of: petrol, wind"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_option(arguments, message):
    """Catches a message that names a field, which the user has never seen, or a value that is let through."""
    assert trip("--goal", "sea", *arguments) == message


@pytest.mark.parametrize(
    ("bounds", "allowed", "refused", "rule"),
    [
        ({"at_least": 0}, (0, 9), (-1,), "must not be below 0"),
        ({"at_least": 0, "note": "0 for none"}, (0,), (-1,), "must not be below 0 (0 for none)"),
        ({"above": 0, "at_most": 1}, (0.1, 1), (0, 1.1), "must be above 0 and at most 1"),
        ({"at_least": 0, "below": 1}, (0, 0.9), (-0.1, 1), "must be at least 0 and below 1"),
        ({"at_least": 0, "at_most": 1}, (0, 1), (-0.1, 1.1), "must be between 0 and 1"),
        ({"above": 0, "infinite": True}, (1, float("inf")), (0, float("nan")), "must be above 0"),
        ({}, (-1, float("nan")), (), None),
    ],
)
def test_ranges(bounds, allowed, refused, rule):
    """Catches a bound that is off by its own value, and a rule that does not say what is checked."""
    facts = option(**bounds)["option"]
    assert all(facts.allows(number) for number in allowed) and not any(facts.allows(number) for number in refused)
    assert rule is None or facts.rule() == rule


def test_an_option_of_no_field_is_refused_when_the_command_is_built():
    """Catches a misspelt field whose option is missing from the command without a word."""
    with pytest.raises(ValueError, match="Motor has no field powr"):
        request_options(Motor, "powr")


def test_the_help_is_the_docstring_of_the_field():
    """Catches an option without help, and an advanced one among those that everybody needs."""
    said = " ".join(trip("--help").split())
    assert docstrings(Trip)["goal"] == "Where it goes, in one word."
    assert "--boats INTEGER Boats. [default: all]" in said and "--shares NUMBERS Shares. [default: 0.5,0.25]" in said
    common, _, advanced = said.partition("Advanced options:")
    assert "--fuel petrol|wind" in common and "--power FLOAT Power in kW. [default: 1.5]" in advanced
    assert option_names(Trip)["num_boats"] == "--boats" and option_names(Trip)["power"] == "--power"


def test_no_option_is_lost():
    """Catches an option that is gone, or has another default or metavar, where options come from requests."""
    now = table()
    for command, options in json.loads(TABLE.read_text()).items():
        for name, facts in options.items():
            assert name in now[command], f"{command} has lost {name}"
            changed = {key: (value, now[command][name][key]) for key, value in facts.items() if value is not None}
            assert all(before == after for before, after in changed.values()), f"{command} {name}: {changed}"


def test_docstrings_are_read_from_an_archive_too(tmp_path):
    """Catches help that is read from a file's path: a package may be installed where there are no such files."""
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        archive.writestr(
            "zipped.py",
            "from dataclasses import dataclass\n@dataclass\nclass Request:\n    size: int = 1\n    '''Its size.'''\n",
        )
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'package.zip')!r})\n"
        "from zipped import Request\nfrom pipeline.cli.request_options import docstrings\nprint(docstrings(Request))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "{'size': 'Its size.'}"
