"""Parts that commands share: the type of a location, and the end on Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pipeline.cli.console import Console
from pipeline.cli.exit_codes import EXIT_INCOMPLETE
from pipeline.storage import AnyPath, locate


class LocationType(click.ParamType[AnyPath]):
    """A local path, or the URL of a remote one."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AnyPath:
        return locate(value)


LOCATION = LocationType()


@contextmanager
def interruptible(console: Console, message: str) -> Iterator[None]:
    """Ends on Ctrl-C with a message and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        console.say(message)
        sys.exit(EXIT_INCOMPLETE)
