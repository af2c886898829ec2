"""A group whose commands are imported when they are called, so that ``--help`` starts at once."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from pipeline.cli.exit_codes import EXIT_WRONG_CALL
from pipeline.errors import UserError


class LazyCommand(NamedTuple):
    """The import path of a command, and its line in the group's help.

    Attributes:
        module: The module that defines it.
        name: The command's name in that module.
        short_help: One line.
    """

    module: str
    name: str
    short_help: str


#: Key of the words that the group was called with, in ``Context.meta``.
_WORDS = "drllm-pipeline.words"


def called_command() -> tuple[str, ...]:
    """The words of the command that runs, as they can be typed again; none outside of a command of the group."""
    context = click.get_current_context(silent=True)
    words = () if context is None else context.meta.get(_WORDS, ())
    return ("drllm-pipeline", *words) if words else ()


class LazyGroup(click.Group):
    """Imports a command on its first use, and turns a user's mistake into its message and exit code 2.

    Args:
        lazy_commands: The commands, by the names that the user types.
        attributes: As for ``click.Group``.
    """

    def __init__(self, *, lazy_commands: Mapping[str, LazyCommand], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lazy_commands = lazy_commands

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lazy_commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self._lazy_commands.get(cmd_name)
        if lazy is None:
            return None
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._lazy_commands[name].short_help) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_WRONG_CALL)
