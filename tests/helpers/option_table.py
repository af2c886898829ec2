"""The options of every command, as a table to keep: ``python tests/helpers/option_table.py`` prints it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from pipeline.cli.main import main


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Each command with its whole name, those of groups too."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for inner in command.list_commands(context):
                one = command.get_command(context, inner)
                assert one is not None
                yield f"{name} {inner}", one


def table() -> dict[str, dict[str, dict[str, object]]]:
    """By command and option: its default as text, its metavar if it names one, and what else a user notices."""
    return {
        name: {option.opts[0]: facts(option) for option in command.params if isinstance(option, click.Option)}
        for name, command in every_command()
    }


def facts(option: click.Option) -> dict[str, object]:
    """What a user notices of an option."""
    default = option.to_info_dict()["default"]
    return {
        "default": None if default is None or option.multiple else str(default),
        "metavar": option.metavar,
        "required": option.required,
        "multiple": option.multiple,
        "flag": option.is_flag,
    }


if __name__ == "__main__":
    print(json.dumps(table(), indent=1))
