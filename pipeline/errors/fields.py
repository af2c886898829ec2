"""The range and the option name of a request's field, declared once: at the field.

A request is a frozen dataclass. ``field(metadata=option(at_least=1))`` declares a range, and ``check_fields``, called
in ``__post_init__``, refuses a value outside it with a message that names the option. The command line derives the
option from the same field; see ``pipeline.cli.request_options``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from pipeline.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class OptionFacts:
    """The facts about a field beside its name, type, default and docstring."""

    name: str | None = None
    """The option, as ``--actors``; None for the field's own name."""
    metavar: str | None = None
    """The word for the value in the help; None for the type's own."""
    unset: str | None = None
    """Meaning of None, in words that follow ``default:`` in the help."""
    advanced: bool = False
    """Whether the help lists it in a section of its own, after what everybody needs."""
    above: float | None = None
    """Exclusive lower bound of the value."""
    at_least: float | None = None
    """The smallest number that is allowed."""
    below: float | None = None
    """Exclusive upper bound of the value."""
    at_most: float | None = None
    """The greatest number that is allowed."""
    infinite: bool = False
    """Whether infinity is a value, of a field with a range."""
    note: str | None = None
    """Meaning of a value at the bound, for the message."""

    def allows(self, number: float) -> bool:
        """Whether a number lies in the range; not-a-number lies in none."""
        if not self.has_range:
            return True
        return (
            (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.below is None or number < self.below)
            and (self.at_most is None or number <= self.at_most)
            and not math.isnan(number)
            and (self.infinite or math.isfinite(number))
        )

    @property
    def has_range(self) -> bool:
        """Whether the field has a lower or an upper bound."""
        return any(bound is not None for bound in (self.above, self.at_least, self.below, self.at_most))

    def rule(self) -> str:
        """The range in words, as ``must be at least 1``."""
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        if low is not None and high is not None and (self.above is None) == (self.below is None):
            rule = f"must be between {low:g} and {high:g}"
        elif self.at_least == 0 and high is None:
            rule = "must not be below 0"
        else:
            bounds = (
                ("above", self.above),
                ("at least", self.at_least),
                ("below", self.below),
                ("at most", self.at_most),
            )
            rule = "must be " + " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        return rule if self.note is None else f"{rule} ({self.note})"


def option(
    name: str | None = None,
    *,
    metavar: str | None = None,
    unset: str | None = None,
    advanced: bool = False,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    infinite: bool = False,
    note: str | None = None,
) -> Mapping[str, Any]:
    """Metadata of a dataclass field; the arguments are those of ``OptionFacts``."""
    return {
        _KEY: OptionFacts(
            name=name,
            metavar=metavar,
            unset=unset,
            advanced=advanced,
            above=above,
            at_least=at_least,
            below=below,
            at_most=at_most,
            infinite=infinite,
            note=note,
        )
    }


def facts_of(field: Field[Any]) -> OptionFacts:
    """The facts in a field's metadata."""
    facts: OptionFacts = field.metadata.get(_KEY, OptionFacts())
    return facts


def option_name(field: Field[Any]) -> str:
    """The option of a field, such as ``--batch-size``."""
    return facts_of(field).name or f"--{field.name.replace('_', '-')}"


@functools.cache
def type_hints(request: type[DataclassInstance]) -> dict[str, Any]:
    """The types of a dataclass' fields, each looked up where its class is defined."""
    return get_type_hints(request)


def choices_of(hint: Any) -> tuple[str, ...]:
    """The words of a ``Literal``, also of an optional one; none for any other type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((choices for part in get_args(hint) if (choices := choices_of(part))), ())


def check_fields(request: DataclassInstance) -> None:
    """Refuse a value that its field does not allow. Call it in ``__post_init__``.

    Raises:
        UserError: A number is out of its range, or a word is not one of its choices; the message names the option.
    """
    hints = type_hints(type(request))
    for field in fields(request):
        value = getattr(request, field.name)
        facts = facts_of(field)
        choices = choices_of(hints[field.name])
        if choices and value is not None and value not in choices:
            word = option_name(field).removeprefix("--")
            raise UserError(f"unknown {word} {value!r}; choose one of: {', '.join(choices)}")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not facts.allows(number):
                shown = f"{number:g}" if isinstance(number, float) else str(number)
                raise UserError(f"{option_name(field)} {facts.rule()}, got {shown}")
