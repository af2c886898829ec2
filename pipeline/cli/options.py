"""What commands have in common: the options that say what actors run on, and how Ctrl-C ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console

from pipeline.distributed.cluster import Resources
from pipeline.errors import UserError
from pipeline.storage import AnyPath, locate


class LocationType(click.ParamType[AnyPath]):
    """A path on this machine, or the URL of a far one."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AnyPath:
        return locate(value)


LOCATION = LocationType()

Command = TypeVar("Command", bound=Callable[..., Any])
EXIT_INTERRUPTED = 1


def resource_options(command: Command) -> Command:
    """The options that say what actors run on."""
    for option in reversed(
        (
            click.option("--actors", type=int, help="Model copies at work.  [default: as many as there is room for]"),
            click.option(
                "--device", default="auto", show_default=True, metavar="auto|cpu|cuda", help="Where they run."
            ),
            click.option(
                "--num-gpus", default=1.0, show_default=True, help="GPUs an actor reserves on cuda; may be a fraction."
            ),
            click.option("--cpus-per-actor", default=1, show_default=True, help="Cores, and torch threads, of one."),
            click.option(
                "--dtype", default="auto", show_default=True, metavar="auto|float32|bfloat16|float16", help="Precision."
            ),
        )
    ):
        command = option(command)
    return command


def resources_of(options: dict[str, Any]) -> Resources:
    """What those options say.

    Raises:
        UserError: One of them is out of its range.
    """
    return Resources(
        device=options["device"],
        dtype=options["dtype"],
        num_actors=options["actors"],
        cpus_per_actor=options["cpus_per_actor"],
        gpus_per_actor=options["num_gpus"],
    )


@contextmanager
def interruptible(console: Console, message: str) -> Iterator[None]:
    """Ends on Ctrl-C with a message and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(message, highlight=False, markup=False)
        sys.exit(EXIT_INTERRUPTED)


def fractions(option: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        UserError: One is none.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise UserError(f"{option} takes numbers with commas between them, got {text!r}") from None
