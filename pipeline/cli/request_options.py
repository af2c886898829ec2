"""Options from requests: a command's options are the fields of the frozen dataclass that it fills.

``@request_options(VerifyRequest)`` adds an option for each field: its name, type, default and docstring are the
option's. ``filled(VerifyRequest, options)`` makes the request from the parsed options, and the request checks it.
The modules of requests import no framework, so that ``--help`` starts at once.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

import click
from upath import UPath

from pipeline.cli.options import LOCATION
from pipeline.errors import UserError
from pipeline.errors.fields import choices_of, facts_of, option_name, type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = TypeVar("Command", bound=Callable[..., Any])
Request = TypeVar("Request", bound="DataclassInstance")


class RequestOption(click.Option):
    """An option that knows whether it is an advanced one."""

    def __init__(self, *arguments: Any, advanced: bool = False, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.advanced = advanced


class RequestCommand(click.Command):
    """A command whose help lists advanced options in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], "Advanced options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                sections["Advanced options" if getattr(parameter, "advanced", False) else "Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class ChoiceOfRequest(click.Choice[str]):
    """Words to choose from, for the help and the shell's completion; the request checks the value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)


class NumbersType(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them; an empty text for none."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(float(part) for part in value.split(",") if part.strip())
        except ValueError:
            name = "a value" if param is None else param.opts[0]
            raise UserError(f"{name} takes numbers with commas between them, got {value!r}") from None


class NumberOrWordType(click.ParamType[int | str]):
    """A whole number, or a word."""

    name = "number or word"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return int(value)
        except ValueError:
            return str(value)


def request_options(
    request: type[DataclassInstance],
    *only: str,
    without: tuple[str, ...] = (),
    **changed: Mapping[str, Any],
) -> Callable[[Command], Command]:
    """A decorator that gives a command an option for each field of a request, those of nested requests included.

    Args:
        request: The frozen dataclass.
        only: Fields that become options; all that are not named in ``without`` if empty.
        without: Fields that do not become options.
        changed: By field, this command's own ``default``, ``help``, or ``unset`` (the meaning of None).

    Raises:
        ValueError: ``only`` names no field of the request.
    """
    unknown = set(only) - {field.name for field in fields(request)}
    if unknown:
        raise ValueError(f"{request.__name__} has no field {', '.join(sorted(unknown))}")

    def add(command: Command) -> Command:
        for option in reversed(list(_options(request, only, without, changed))):
            command = option(command)
        return command

    return add


def filled(request: type[Request], options: Mapping[str, Any], **fixed: Any) -> Request:
    """A request of parsed options: each field has the option of its name, or else its default.

    Args:
        request: The frozen dataclass.
        options: The parsed options by field, those of nested requests included.
        fixed: Values of fields that have no option.

    Raises:
        UserError: A value is out of its range.
    """
    return request(**_values(request, options, fixed))


def refilled(default: Request, options: Mapping[str, Any], **fixed: Any) -> Request:
    """Another request with the options that are given, which has ``default``'s other fields."""
    return replace(default, **_values(type(default), options, fixed))


def option_names(request: type[DataclassInstance]) -> dict[str, str]:
    """The option of each field of a request, those of requests in it included."""
    names: dict[str, str] = {}
    for field in fields(request):
        hint = type_hints(request)[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            names |= option_names(hint)
        else:
            names[field.name] = option_name(field)
    return names


def _values(request: type[DataclassInstance], options: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(fixed)
    for field in fields(request):
        hint = type_hints(request)[field.name]
        if field.name in fixed:
            continue
        if is_dataclass(hint) and field.default_factory is not MISSING:
            values[field.name] = refilled(field.default_factory(), options)
        elif field.name in options and not (_is_multiple(hint) and not options[field.name]):
            values[field.name] = options[field.name]
    return values


def _options(
    request: type[DataclassInstance],
    only: tuple[str, ...],
    without: tuple[str, ...],
    changed: Mapping[str, Any],
    defaults: DataclassInstance | None = None,
) -> Iterator[Callable[[Command], Command]]:
    """The options of a request's fields; where it stands in another request, ``defaults`` is what that has there."""
    for field in fields(request):
        hint = type_hints(request)[field.name]
        if (only and field.name not in only) or field.name in without:
            continue
        if is_dataclass(hint) and isinstance(hint, type):
            inner = None if field.default_factory is MISSING else field.default_factory()
            yield from _options(hint, (), without, changed, inner)
        else:
            default = field.default if defaults is None else getattr(defaults, field.name)
            yield _option(request, field, hint, {"default": default, **changed.get(field.name, {})})


def _option(
    request: type[DataclassInstance], field: Field[Any], hint: Any, said: Mapping[str, Any]
) -> Callable[[Command], Command]:
    facts, choices, multiple = facts_of(field), choices_of(hint), _is_multiple(hint)
    default = said["default"]
    if isinstance(default, tuple):
        default = ",".join(f"{number:g}" for number in default) if not multiple else None
    text = said.get("help", docstrings(request)[field.name])
    unset = said.get("unset", facts.unset)
    attributes: dict[str, Any] = {
        "help": text if unset is None else f"{text}  [default: {unset}]",
        "type": _click_type(hint),
        "metavar": facts.metavar or "|".join(choices) or None,
        "advanced": facts.advanced,
        "multiple": multiple,
        "required": default is MISSING,
    }
    if hint is bool:
        attributes |= {"is_flag": True, "default": default}
    elif default is not MISSING and default is not None:
        attributes |= {"show_default": True, "default": default}
    return click.option(option_name(field), field.name, cls=RequestOption, **attributes)


_SCALARS: dict[Any, click.ParamType[Any] | None] = {
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    bool: None,
}


def _click_type(hint: Any) -> click.ParamType[Any] | None:
    """The type of an option's value."""
    parts = {part for part in _alternatives(hint) if part is not type(None)}
    choices = choices_of(hint)
    if choices:
        return ChoiceOfRequest(choices)
    if parts == {int, str}:
        return NumberOrWordType()
    if parts == {Path}:
        return click.Path(path_type=Path)
    if Path in parts or UPath in parts:
        return LOCATION
    [kind] = parts
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return NumbersType() if inner is float else _click_type(inner)
    return _SCALARS[kind]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_multiple(hint: Any) -> bool:
    """Whether an option of this type may be given several times: numbers have commas between them instead."""
    return any(get_origin(part) is tuple and get_args(part)[0] is not float for part in _alternatives(hint))


@functools.cache
def docstrings(request: type[DataclassInstance]) -> dict[str, str]:
    """The docstring under each field of a dataclass, inherited ones included, on one line, as its source has it."""
    texts: dict[str, str] = {}
    for parent in reversed(request.__mro__):
        if is_dataclass(parent):
            texts |= _own_docstrings(parent)
    return texts


def _own_docstrings(request: type[DataclassInstance]) -> dict[str, str]:
    tree = ast.parse(inspect.getsource(sys.modules[request.__module__]))
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == request.__name__]
    return {
        field.target.id: " ".join(text.value.value.replace("``", "").split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
