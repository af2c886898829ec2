r"""What math-verify does not see in a written answer: units, bases, spaces between digits, and powers as ``1e3``.

math-verify reads ``5 km`` and ``5 cm`` as 5, ``11_7`` and ``11_6`` as 11, ``1\,000`` as 1 times 0, and ``1e3`` as a
product with Euler's number. Here an answer becomes a text that math-verify reads rightly, its unit, and its base.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Spaces that LaTeX writes between groups of three digits, and a comma that it keeps from being a list's.
_DIGIT_GAP = re.compile(r"(?<=\d)(?:\\[,!;: ]|~|\{,\}|\\thinspace\s*| (?=\d{3}(?!\d)))(?=\d{3}(?!\d))")
_POWER_OF_TEN = re.compile(r"(?<![\w\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)")
#: Digits with a subscript, which is their base: ``1011_2``, ``11_{7}``, ``1a_{\text{sixteen}}``.
_BASE = re.compile(r"(\d[0-9A-Fa-f]*)_(?:\{?(\d{1,2})\}?|\{?\\text\{(\w+)\}\}?)")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mbox|textrm)\{([^{}]*)\}")
_NUMBER = r"[-+]?(?:\\\$)?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|\d+/\d+)"
#: A number, and a unit behind it: words, perhaps with a power.
_WITH_UNIT = re.compile(
    rf"(?P<number>{_NUMBER}(?:\s*(?:\\times|\\cdot)\s*10\^\{{?-?\d+\}}?)?)\s*(?P<unit>[A-Za-z°µ][A-Za-z°µ./ ]*?)"
    r"(?:\s*\^\s*\{?(?P<power>-?\d)\}?)?\s*\.?"
)
#: One name for each unit of measurement, by its other spellings.
_UNIT_NAMES = {
    **dict.fromkeys(("mm", "millimetre"), "millimeter"),
    **dict.fromkeys(("cm", "centimetre"), "centimeter"),
    **dict.fromkeys(("m", "metre"), "meter"),
    **dict.fromkeys(("km", "kilometre"), "kilometer"),
    **dict.fromkeys(("in", "inche"), "inch"),
    **dict.fromkeys(("ft", "feet"), "foot"),
    **dict.fromkeys(("yd",), "yard"),
    **dict.fromkeys(("mi",), "mile"),
    **dict.fromkeys(("mg",), "milligram"),
    **dict.fromkeys(("g",), "gram"),
    **dict.fromkeys(("kg",), "kilogram"),
    **dict.fromkeys(("lb", "lbs"), "pound"),
    **dict.fromkeys(("oz",), "ounce"),
    **dict.fromkeys(("ml", "millilitre"), "milliliter"),
    **dict.fromkeys(("l", "litre"), "liter"),
    **dict.fromkeys(("s", "sec"), "second"),
    **dict.fromkeys(("min",), "minute"),
    **dict.fromkeys(("h", "hr", "hrs"), "hour"),
    **dict.fromkeys(("usd",), "dollar"),
}
_UNITS = frozenset({*_UNIT_NAMES.values(), "day", "week", "month", "year", "cent", "degree", "radian", "ton", "gallon"})
_SQUARE, _CUBIC = re.compile(r"^(?:square|sq) "), re.compile(r"^(?:cubic|cu) ")
#: Words behind a number that are no unit.
_NO_UNITS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "sqrt", "percent", "per", "and", "mod"})


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenAnswer:
    """An answer in the notation that math-verify reads.

    Attributes:
        text: The answer without its unit and base.
        unit: Its unit, in one form for all spellings; empty where there is none.
        base: The base of its digits; empty where there is none.
    """

    text: str
    unit: str = ""
    base: str = ""


def read_answer(content: str) -> WrittenAnswer:
    """Read the content of a box, or a reference answer."""
    text = _POWER_OF_TEN.sub(r"\1\\times 10^{\2}", _DIGIT_GAP.sub("", content.strip().strip("$").strip()))
    based = _BASE.fullmatch(text)
    if based is not None:
        return WrittenAnswer(text=based[1].lstrip("0") or "0", base=based[2] or based[3])
    plain = " ".join(_WRAPPED.sub(r" \1 ", text).replace("\\ ", " ").replace("\\,", " ").split())
    measured = _WITH_UNIT.fullmatch(plain)
    if measured is None:
        return WrittenAnswer(text=text)
    words = [_unit_word(word) for word in measured["unit"].lower().replace(".", "").split()]
    marked = _WRAPPED.search(text) is not None
    # Letters behind a number are variables, as in 3x and 2ab, where they are neither marked as text nor a unit's name.
    if words[0] in _NO_UNITS or not (marked or all(len(word) > 2 for word in words)):
        return WrittenAnswer(text=text)
    return WrittenAnswer(text=measured["number"].strip(), unit=_unit(words, measured["power"]))


def differ_in_notation(answer: WrittenAnswer, reference: WrittenAnswer) -> bool:
    """Whether two answers differ in their units or bases, or in digits that a base gives another meaning."""
    if answer.unit and reference.unit and answer.unit != reference.unit:
        return True
    if answer.base and answer.base != reference.base:
        return True
    # An answer may leave out the base that the question asks for; its digits are in it.
    return bool(reference.base) and answer.text.lstrip("0").lower() != reference.text.lstrip("0").lower()


def _unit(words: list[str], power: str | None) -> str:
    """One form for all spellings of a unit of measurement; empty for other words, such as apples."""
    phrase = " ".join(words)
    exponent = power or ("2" if _SQUARE.match(phrase) else "3" if _CUBIC.match(phrase) else "1")
    phrase = _CUBIC.sub("", _SQUARE.sub("", phrase)).partition(" of ")[0]
    return f"{phrase}^{exponent}" if phrase.split(" ")[0] in _UNITS else ""


def _unit_word(word: str) -> str:
    singular = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    return _UNIT_NAMES.get(word, _UNIT_NAMES.get(singular, singular))
